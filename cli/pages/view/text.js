// The response as a heat map of one trait, one span per token, and the same beside it, steered.

const LEVELS = 10;
let panes = [];      // {record, box, spans}
let heat = { middle: 0, reach: 1, isZero: true };
let hovered = false;

function startText() {
  byId("heat-trait").addEventListener("change", (event) => setTrait(event.target.value));
  const texts = byId("texts");
  // Delegated: five thousand spans carry no listener of their own.
  const point = (event) => {
    const index = event.target.dataset?.i;
    if (index === undefined || Number(index) === state.token) return;
    hovered = true;
    setToken(Number(index));
  };
  // A finger that scrolls the text moves no slider, nor does text that scrolls under the pointer.
  texts.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") point(event); });
  texts.addEventListener("click", point);
  onChange(["record"], layOutPanes);
  onChange(["record", "tokens", "trait"], paintHeatChoice);
  onChange(["tokens"], growPanes);
  onChange(["record", "tokens", "trait", "units"], paintHeat);
  onChange(["record", "tokens", "token", "trait", "units"], markToken);
}

function layOutPanes() {
  panes = shownRecords().map((record) => ({ record, box: element("div", { className: "tokens", tabindex: "0" }), spans: [] }));
  const names = shownRecords().map(responseName);
  byId("texts").replaceChildren(...panes.map(({ record, box }, i) => {
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${names[i]} by token`);
    const heading = element("h3", { text: `${names[i]}, ${record.tokens.length} tokens` });
    return element("div", {}, panes.length > 1 ? [heading, box] : [box]);
  }));
  growPanes();
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

// Adds the spans of tokens that have none yet.
function growPanes() {
  for (const { record, box, spans } of panes) {
    const wasAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
    for (let i = spans.length; i < record.tokens.length; i++) {
      const span = document.createElement("span");
      span.textContent = record.tokens[i];
      span.dataset.i = String(i);
      spans.push(span);
      blockFor(box, record.tokens[i - 1]).append(span);
    }
    if (!record.isComplete && wasAtEnd) box.scrollTop = box.scrollHeight;
  }
}

// The browser repaints the block of the marked token only, not all five thousand tokens. A block
// ends where the text has a line break anyway.
const BLOCK = 50;
function blockFor(box, tokenBefore) {
  const block = box.lastElementChild;
  if (block && (block.childElementCount < BLOCK || !tokenBefore.endsWith("\n"))) return block;
  const fresh = document.createElement("div");
  box.append(fresh);
  return fresh;
}

function paintHeatChoice() {
  const traits = traitsOf(state.record);
  if (!traits.includes(state.trait)) state.trait = traits[0] ?? null;
  fillSelect(byId("heat-trait"), traits.map((trait) => [trait, trait]), state.trait ?? "");
}

function paintHeat() {
  heat = heatScale(shownRecords().map((record) => scoresOf(record, state.trait)));
  for (const { record, spans } of panes) {
    const scores = scoresOf(record, state.trait);
    spans.forEach((span, i) => {
      const name = heatClass(scores[i]) + (record.tokens[i].startsWith("\n") ? " n" : "");
      if (span.className !== name) span.className = name;
    });
  }
  marked = [];
  paintHeatScale();
}

// Above the middle, below it, or without a score; and one of ten strengths.
function heatClass(score) {
  if (!Number.isFinite(score)) return "x";
  const level = Math.min(LEVELS, Math.round((LEVELS * Math.abs(score - heat.middle)) / heat.reach));
  return level === 0 ? "" : `${score > heat.middle ? "a" : "b"} s${level}`;
}

function paintHeatScale() {
  const low = shown(heat.middle - heat.reach), high = shown(heat.middle + heat.reach);
  const middle = heat.isZero ? "" : ` (middle ${shown(heat.middle)}, the mean)`;
  byId("heat-scale").replaceChildren(low, element("i"), `${high}${middle}`);
  byId("heat-scale").setAttribute("aria-label", `Colors from ${low} to ${high}${middle}`);
}

let marked = [];
function markToken() {
  for (const span of marked) {
    span.classList.remove("now");
    span.removeAttribute("title");
  }
  marked = panes.map(({ spans }) => spans[state.token]).filter(Boolean);
  for (const span of marked) {
    span.classList.add("now");
    const scores = scoresOf(panes.find(({ spans }) => spans[state.token] === span).record, state.trait);
    span.title = `token ${state.token + 1}, ${state.trait} ${shown(scores[state.token])}`;
    // What the pointer rests on must not move away from under it.
    if (!hovered) scrollTo(span);
  }
  hovered = false;
}

function scrollTo(span) {
  const box = span.closest(".tokens");
  const inside = span.getBoundingClientRect(), outside = box.getBoundingClientRect();
  if (inside.top < outside.top || inside.bottom > outside.bottom) {
    box.scrollTop += inside.top - outside.top - box.clientHeight / 2;
  }
}
