// Draws the trajectories on a canvas of any size; knows nothing of pointers or the page's layout.

const LABEL_SPACE = 168;
const FONT = "12px system-ui, 'Segoe UI', Roboto, Arial, sans-serif";
const SURE = 0.05;

// Where things lie in a drawing of width x height pixels.
function chartFrame(width, height) {
  const last = Math.max(1, nTokens() - 1);
  const [first, end] = state.view ?? [0, last];
  const lists = shownTraits().map((trait) => seriesOf(state.record, trait));
  if (state.beside && !state.hidden.has(state.trait)) lists.push(seriesOf(state.beside, state.trait));
  const reached = extent(lists) ?? [0, 1];
  const pad = (reached[1] - reached[0]) * 0.06 || Math.abs(reached[1]) * 0.1 || 1;
  const [low, high] = [reached[0] - pad, reached[1] + pad];
  const labels = width > 700 ? LABEL_SPACE : 8;
  const marks = ticks(low, high, height / 45);
  const left = 14 + 7 * Math.max(...marks.values.map((v) => tickText(v, marks.step).length), 2);
  const box = { left, top: 26, right: width - labels, bottom: height - 26 };
  const x = (i) => box.left + ((i - first) / (end - first)) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  const tokenAt = (px) => Math.round(first + ((px - box.left) / (box.right - box.left)) * (end - first));
  return { width, height, box, first, end, reached, marks, x, y, tokenAt, hasLabels: labels > 8 };
}

function drawLines(context, frame) {
  context.font = FONT;
  drawAxes(context, frame);
  const { box } = frame;
  context.save();
  context.beginPath();
  context.rect(box.left - 9, box.top - 4, box.right - box.left + 13, box.bottom - box.top + 8);
  context.clip();
  const traits = shownTraits();
  // The chosen trait is drawn last, over the others.
  const order = [...traits.filter((t) => t !== state.trait), ...traits.filter((t) => t === state.trait)];
  for (const trait of order) drawOne(context, frame, trait);
  for (const trait of order) drawDynamics(context, frame, trait);
  context.restore();
  if (frame.hasLabels) drawLabels(context, frame, traits);
}

function drawAxes(context, frame) {
  const { box, marks, y, x } = frame;
  context.textBaseline = "middle";
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const value of marks.values) {
    const at = Math.round(y(value)) + 0.5;
    context.strokeStyle = value === 0 ? color("soft") : color("grid");
    line(context, box.left, at, box.right, at);
    context.fillStyle = color("soft");
    context.fillText(tickText(value, marks.step), box.left - 6, at);
  }
  context.textAlign = "center";
  const along = ticks(frame.first + 1, frame.end + 1, (box.right - box.left) / 80);
  for (const value of along.values.filter(Number.isInteger)) {
    context.fillText(String(value), x(value - 1), box.bottom + 14);
  }
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function drawOne(context, frame, trait) {
  const look = lookOf(trait), isChosen = trait === state.trait;
  context.strokeStyle = look.color;
  context.globalAlpha = isChosen ? 1 : 0.75;
  context.lineJoin = "round";
  if (isChosen && state.window > 1) {
    // The scores themselves, faintly, behind their average.
    context.globalAlpha = 0.3;
    context.lineWidth = 1;
    context.setLineDash([]);
    trace(context, frame, rawSeries(state.record, trait));
    context.globalAlpha = 1;
  }
  context.lineWidth = isChosen ? 3 : 1.5;
  context.setLineDash(look.dash.map((d) => d * (isChosen ? 1.4 : 1)));
  trace(context, frame, seriesOf(state.record, trait));
  if (isChosen && state.beside) drawBeside(context, frame, trait);
  context.setLineDash([]);
  context.globalAlpha = 1;
}

// One path. With several tokens to a pixel, the lowest and highest of each pixel keep every peak.
function trace(context, frame, values) {
  const { first, end, x, y, box } = frame;
  const from = Math.max(0, first - 1), to = Math.min(values.length - 1, end + 1);
  context.beginPath();
  let isDown = false;
  const go = (px, value) => {
    if (isDown) context.lineTo(px, y(value));
    else context.moveTo(px, y(value));
    isDown = true;
  };
  if ((to - from) / (box.right - box.left) < 1) {
    for (let i = from; i <= to; i++) {
      if (Number.isFinite(values[i])) go(x(i), values[i]);
      else isDown = false;
    }
  } else {
    traceByPixel(frame, values, from, to, go);
  }
  context.stroke();
}

function traceByPixel(frame, values, from, to, go) {
  let pixel = null, lowAt = 0, highAt = 0;
  const flush = () => {
    for (const i of lowAt < highAt ? [lowAt, highAt] : [highAt, lowAt]) go(frame.x(i), values[i]);
  };
  for (let i = from; i <= to; i++) {
    if (!Number.isFinite(values[i])) continue;
    const at = Math.floor(frame.x(i));
    if (at !== pixel) {
      if (pixel !== null) flush();
      [pixel, lowAt, highAt] = [at, i, i];
    }
    if (values[i] < values[lowAt]) lowAt = i;
    if (values[i] > values[highAt]) highAt = i;
  }
  if (pixel !== null) flush();
}

// The same color with open circles: known without color from the other line.
function drawBeside(context, frame, trait) {
  const values = seriesOf(state.beside, trait);
  context.setLineDash([]);
  context.lineWidth = 1.5;
  trace(context, frame, values);
  const every = Math.max(1, Math.ceil((28 * (frame.end - frame.first)) / (frame.box.right - frame.box.left)));
  for (let i = 0; i < values.length; i += every) {
    if (!Number.isFinite(values[i])) continue;
    ring(context, frame.x(i), frame.y(values[i]));
  }
}

function ring(context, x, y) {
  context.beginPath();
  context.arc(x, y, 3.5, 0, 7);
  context.fillStyle = color("card");
  context.fill();
  context.stroke();
}

// Full diamond: a step unlikely under the null. Open diamond: the documents' commitment point,
// which many traits have in their first tokens and which is therefore drawn for the chosen one only.
function drawDynamics(context, frame, trait) {
  const found = state.record.dynamics.get(trait);
  if (!found) return;
  const values = seriesOf(state.record, trait);
  const isSure = found.step !== null && found.stepP <= SURE;
  for (const [index, isFull] of [[trait === state.trait ? found.commitment : null, false], [isSure ? found.step : null, true]]) {
    if (index === null || !Number.isFinite(values[index])) continue;
    diamond(context, frame.x(index), frame.y(values[index]), trait === state.trait ? 8 : 5.5);
    context.fillStyle = isFull ? lookOf(trait).color : color("card");
    context.strokeStyle = isFull ? color("card") : lookOf(trait).color;
    context.lineWidth = 2;
    context.fill();
    context.stroke();
  }
}

function diamond(context, x, y, size) {
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.closePath();
}
