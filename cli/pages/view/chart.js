// The line chart on the page: lines on one canvas, the cursor on another above it, so that moving
// the cursor never draws five thousand tokens again.

let frame = null;

function startChart() {
  byId("series").addEventListener("change", (event) => { state.series = event.target.value; changed("series"); });
  byId("window").addEventListener("input", (event) => {
    state.window = Number(event.target.value);
    state.isWindowChosen = true;
    changed("series");
  });
  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", () => { state.view = null; changed("series"); });
  const canvas = byId("cursor");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointed(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) pointed(event); });
  new ResizeObserver(() => changed("size")).observe(byId("chart"));
  onChange(["record", "series"], paintWindow);
  onChange(["record", "tokens", "trait", "hidden", "units", "series", "theme", "size"], paintLines);
  onChange(["record", "tokens", "token", "trait", "hidden", "units", "series", "theme", "size"], paintCursor);
}

function pointed(event) {
  if (frame) setToken(frame.tokenAt(event.offsetX));
}

const NARROWEST = 8;
function zoom(factor) {
  const last = Math.max(1, nTokens() - 1);
  const [first, end] = state.view ?? [0, last];
  const width = Math.min(last, Math.max(NARROWEST, Math.round((end - first) * factor)));
  const start = Math.min(last - width, Math.max(0, state.token - (width >> 1)));
  state.view = width >= last ? null : [start, start + width];
  changed("series");
}

function paintWindow() {
  byId("window").value = String(state.window);
  byId("window-text").textContent = state.window === 1 ? "off" : `mean of last ${state.window}`;
  byId("zoom-all").disabled = byId("zoom-out").disabled = !state.view;
}

// A canvas as sharp as the screen; the context's unit is one CSS pixel.
function sized(canvas) {
  const { clientWidth, clientHeight } = byId("chart");
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(clientWidth * scale), height = Math.round(clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  return context;
}

function paintLines() {
  const canvas = byId("lines");
  const context = sized(canvas);
  frame = chartFrame(byId("chart").clientWidth, byId("chart").clientHeight);
  drawLines(context, frame);
  canvas.setAttribute("aria-label", `${state.series} of ${shownTraits().join(", ")} over ` +
    `${nTokens()} tokens, from ${shown(frame.reached[0])} to ${shown(frame.reached[1])}; the table below has the figures`);
  paintMarkers();
}

function paintCursor() {
  if (frame) drawCursor(sized(byId("cursor")), frame);
}

function drawCursor(context, { box, x, y, first, end }) {
  if (state.token < first || state.token > end) return;
  const at = Math.round(x(state.token)) + 0.5;
  context.strokeStyle = color("mark");
  context.lineWidth = 1.5;
  line(context, at, box.top - 22, at, box.bottom);
  for (const trait of shownTraits()) {
    const value = seriesOf(state.record, trait)[state.token];
    if (!Number.isFinite(value)) continue;
    context.beginPath();
    context.arc(at, y(value), trait === state.trait ? 5 : 3.5, 0, 7);
    context.fillStyle = lookOf(trait).color;
    context.strokeStyle = color("card");
    context.fill();
    context.stroke();
  }
  const value = seriesOf(state.record, state.trait)[state.token];
  if (!state.hidden.has(state.trait)) tag(context, box, at, `${state.trait} ${shown(value)}${averaged()}`);
}

const averaged = () => (state.window > 1 ? ` (mean of ${state.window})` : "");

function tag(context, box, at, text) {
  context.font = FONT;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const width = context.measureText(text).width + 10;
  const left = at + 6 + width > box.right ? at - 6 - width : at + 6;
  context.fillStyle = color("mark");
  context.fillRect(left, box.top - 22, width, 18);
  context.fillStyle = color("card");
  context.fillText(text, left + 5, box.top - 13);
}

function paintMarkers() {
  const found = state.record.dynamics.get(state.trait);
  const parts = [];
  if (found?.commitment != null) parts.push(`◇ ${state.trait} commits at token ${found.commitment + 1}`);
  if (found?.step != null && found.stepP <= SURE) {
    parts.push(`◆ its level steps at token ${found.step + 1} (p ${showP(found.stepP)})`);
  }
  if (state.beside) parts.push(`○ ${state.trait}, ${besideWord()}`);
  byId("markers").textContent = parts.join(" · ");
}
