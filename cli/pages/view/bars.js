// One bar per trait at the current token, on one scale for the whole response.

let rows = [];   // {trait, button, bars, zero, value}
let domain = [0, 1];

function startBars() {
  for (const button of byId("units").children) {
    button.addEventListener("click", () => chooseUnits(button.dataset.units));
  }
  byId("units").addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || !hasZ()) return;
    event.preventDefault();
    chooseUnits(units() === "z" ? "raw" : "z");
    byId("units").querySelector('[aria-checked="true"]').focus();
  });
  onChange(["record", "tokens", "units"], paintUnits);
  onChange(["record", "tokens", "trait", "hidden", "theme"], layOutBars);
  onChange(["record", "tokens", "trait", "hidden", "units", "theme"], fitBars);
  onChange(["record", "tokens", "token", "trait", "hidden", "units", "theme"], paintBars);
}

function chooseUnits(name) {
  state.units = name;
  changed("units");
}

function paintUnits() {
  for (const button of byId("units").children) {
    const isChosen = button.dataset.units === units();
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
    if (button.dataset.units !== "z") continue;
    button.disabled = !hasZ();
    button.title = hasZ() ? "Standard deviations from the baseline" : "This record has no trait_zscores";
  }
}

const layOutBars = onlyWhenLooksChange(() => {
  const focused = document.activeElement?.dataset?.bar;
  rows = shownTraits().map(barRow);
  byId("bars").replaceChildren(...rows.map(({ button }) => button));
  if (focused !== undefined) rows.find(({ trait }) => trait === focused)?.button.focus();
});

function fitBars() {
  const lists = shownRecords().flatMap((record) => shownTraits().map((trait) => scoresOf(record, trait)));
  const [low, high] = extent(lists) ?? [0, 1];
  domain = [Math.min(0, low), Math.max(0, high)];
  if (domain[0] === domain[1]) domain = [0, 1];
  byId("bars-note").textContent = besideNote();
  for (const { zero } of rows) zero.style.left = `${100 * share(0)}%`;
}

function besideNote() {
  if (!state.beside) return "";
  const scales = isOfOtherSet(state.beside) && units() === "raw" ? " Raw scores of two models have scales of their own: z is comparable." : "";
  return `Below each bar, striped: the same token number, ${besideWord()}.${scales}`;
}

function barRow(trait) {
  const bars = shownRecords().map(() => element("b"));
  const zero = element("u");
  const value = element("span", { className: "value" });
  const track = element("span", { className: bars.length > 1 ? "track two" : "track" }, [...bars, zero]);
  const button = element("button", {
    className: "bar", type: "button", "data-bar": trait, "aria-pressed": String(trait === state.trait),
    title: "Show this trait in the heat map",
  }, [element("span", { text: trait }), track, value]);
  button.style.setProperty("--color", lookOf(trait).color);
  button.addEventListener("click", () => setTrait(trait));
  return { trait, button, bars, zero, value };
}

const share = (value) => (value - domain[0]) / (domain[1] - domain[0]);

function paintBars() {
  for (const { trait, bars, value } of rows) {
    const scores = shownRecords().map((record) => scoresOf(record, trait)[state.token]);
    bars.forEach((bar, i) => {
      const from = Number.isFinite(scores[i]) ? share(Math.min(0, scores[i])) : 0;
      const to = Number.isFinite(scores[i]) ? share(Math.max(0, scores[i])) : 0;
      bar.style.left = `${100 * from}%`;
      bar.style.width = `${100 * (to - from)}%`;
    });
    value.textContent = shown(scores[0]);
    if (scores.length > 1) value.append(element("small", { text: shown(scores[1]) }));
  }
}
