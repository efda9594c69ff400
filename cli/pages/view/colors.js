// The traits' colors and dashes, light and dark.

// Searched for: each pair differs under normal vision and under protanopia, deuteranopia and
// tritanopia (Machado 2009; OKLab distance over 0.095), contrast with the card at least 3 to 1.
const LIGHT = ["#3c6996", "#b47800", "#b40f4b", "#00a578", "#7800a5", "#f05ac3", "#8769ff", "#0f5a00"];
const DARK = ["#78a5ff", "#ffe187", "#e13c2d", "#00ffff", "#b44bd2", "#ff96b4", "#1e8787", "#96b400"];
// Color is never alone: the dash differs too, and the ninth trait shares only its color with the first.
const DASHES = [[], [7, 3], [2, 3], [10, 3, 2, 3]];

// The style sheet's colors, read once per theme: reading one makes the browser settle all styles.
const colors = new Map();
function startColors() {
  startTheme(byId("theme"), () => { colors.clear(); changed("theme"); });
}

function color(name) {
  if (!colors.has(name)) {
    colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return colors.get(name);
}

// A trait keeps its look in all data sets: it is numbered when it is first seen.
const traitNumbers = new Map();
function lookOf(trait) {
  if (!traitNumbers.has(trait)) traitNumbers.set(trait, traitNumbers.size);
  const i = traitNumbers.get(trait);
  const palette = isDark() ? DARK : LIGHT;
  return {
    color: palette[i % palette.length],
    dash: DASHES[(i + Math.floor(i / palette.length)) % DASHES.length],
  };
}
