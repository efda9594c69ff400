// Names at the lines' right ends, moved apart where lines end close together.

const LABEL_HEIGHT = 15;

function drawLabels(context, frame, traits) {
  const ends = traits.map((trait) => ({ text: trait, trait, at: endOf(frame, seriesOf(state.record, trait)) }));
  if (state.beside && traits.includes(state.trait)) {
    ends.push({ text: `${state.trait}, ${besideWord()}`, trait: state.trait, isBeside: true,
      at: endOf(frame, seriesOf(state.beside, state.trait)) });
  }
  const placed = spread(ends.filter(({ at }) => at !== null), frame.box.top, frame.box.bottom);
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const label of placed) drawLabel(context, frame, label);
}

function endOf(frame, values) {
  for (let i = Math.min(values.length - 1, frame.end); i >= frame.first; i--) {
    if (Number.isFinite(values[i])) return { x: frame.x(i), y: frame.y(values[i]) };
  }
  return null;
}

// Labels from top to bottom without overlap, each as near to its line's end as that allows.
function spread(labels, top, bottom) {
  labels.sort((a, b) => a.at.y - b.at.y);
  const height = Math.min(LABEL_HEIGHT, (bottom - top) / Math.max(1, labels.length));
  labels.forEach((label, i) => {
    const above = i ? labels[i - 1].y + height : top;
    label.y = Math.max(label.at.y, above);
  });
  for (let i = labels.length - 1, limit = bottom; i >= 0; i--) {
    labels[i].y = Math.min(labels[i].y, limit);
    limit = labels[i].y - height;
  }
  return labels;
}

function drawLabel(context, frame, { text, trait, isBeside, at, y }) {
  const start = frame.box.right + 4;
  const look = lookOf(trait);
  // A line that ends early is not led across the others to its name.
  if (at.x > frame.box.right - 12) {
    context.strokeStyle = color("edge");
    context.lineWidth = 1;
    line(context, Math.min(at.x + 1, start), at.y, start + 6, y);
  }
  context.strokeStyle = look.color;
  context.lineWidth = trait === state.trait && !isBeside ? 3 : 1.5;
  context.setLineDash(isBeside ? [] : look.dash);
  line(context, start + 8, y, start + 26, y);
  context.setLineDash([]);
  if (isBeside) ring(context, start + 17, y);
  context.fillStyle = color("ink");
  context.font = trait === state.trait ? `600 ${FONT}` : FONT;
  context.fillText(fit(context, text, frame.width - start - 32), start + 31, y);
  context.font = FONT;
}

function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let short = text;
  while (short && context.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}
