// Arithmetic on one trait's scores; a missing score is NaN and is left out. Knows nothing of the page.

const finite = (values) => values.filter(Number.isFinite);

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const values of lists) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : null;
}

// Population standard deviation, as numpy's default.
function summary(values) {
  const present = finite(values);
  if (!present.length) return null;
  const mean = present.reduce((sum, x) => sum + x, 0) / present.length;
  const variance = present.reduce((sum, x) => sum + (x - mean) ** 2, 0) / present.length;
  const [min, max] = extent([present]);
  return { mean, std: Math.sqrt(variance), min, max };
}

// Mean of the last `window` scores, so that no token is shown with scores of later ones.
function trailingMean(values, window) {
  if (window <= 1) return values;
  const smooth = new Array(values.length);
  let sum = 0, count = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) { sum += values[i]; count++; }
    const gone = values[i - window];
    if (i >= window && Number.isFinite(gone)) { sum -= gone; count--; }
    smooth[i] = Number.isFinite(values[i]) ? sum / count : NaN;
  }
  return smooth;
}

// Difference to the token before; the first token has none.
function difference(values) {
  return values.map((value, i) => (i ? value - values[i - 1] : NaN));
}

// Middle and half width of a color scale. The middle is 0 where the scores lie on both sides of
// it, else their mean: scores around 40 would otherwise all have one color. One token in a hundred
// may lie beyond the end, so that a single outlier does not pale the rest.
function heatScale(lists) {
  const values = finite(lists.flat());
  if (!values.length) return { middle: 0, reach: 1, isZero: true };
  const [low, high] = extent([values]);
  const isZero = low <= 0 && high >= 0;
  const middle = isZero ? 0 : values.reduce((sum, x) => sum + x, 0) / values.length;
  const away = values.map((x) => Math.abs(x - middle)).sort((a, b) => a - b);
  return { middle, reach: away[Math.ceil(0.99 * (away.length - 1))] || 1, isZero };
}

function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step || 0);
  return { step, values: found };
}

function tickText(value, step) {
  if (Math.abs(value) >= 1e6 || step < 1e-5) return value.toExponential(1);
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))).replace("-", "−");
}

// Decimals that tell tokens of the least varying trait apart; the same for all, so columns align.
function decimalsFor(lists) {
  const ranges = lists.map((values) => extent([values])).filter(Boolean)
    .map(([low, high]) => high - low).filter((range) => range > 0);
  return ranges.length ? Math.min(8, Math.max(2, 1 - Math.floor(Math.log10(Math.min(...ranges))))) : 2;
}

// A real minus sign keeps columns even; what is missing shows as a dash.
function show(value, decimals) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "—";
  const text = Math.abs(value) >= 1e7 ? value.toExponential(3) : value.toFixed(decimals);
  return /[1-9]/.test(text) ? text.replace("-", "−") : text.replace("-", "");
}

const showP = (p) => (typeof p === "number" && Number.isFinite(p) ? String(Number(p.toPrecision(2))) : "—");
