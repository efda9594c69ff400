// Charts in SVG, drawn at the width there is and again when it changes.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function figure(title, label, height, draw, legend) {
  const host = el("div", { class: "plot" });
  host.style.height = height + "px";
  let width = 0;
  const redraw = () => {
    const now = Math.max(240, Math.floor(host.clientWidth));
    if (now === width) return;
    width = now;
    host.replaceChildren(svg("svg", { width: now, height, viewBox: `0 0 ${now} ${height}`, role: "img", "aria-label": label }, draw(now, height)));
  };
  new ResizeObserver(redraw).observe(host);
  const save = (kind, make) => el("button", { type: "button", "aria-label": `${kind} of ${title}`, onclick: () => make(host.firstChild, fileName(title)) }, kind);
  return el("figure", {}, el("figcaption", {}, title), host, legend || null, el("div", { class: "saves" }, save("PNG", savePng), save("SVG", saveSvg)));
}

const DRAWN_WITH = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"];

// The chart alone, with the styles that the page gives it and the page's own ground.
function standalone(chart) {
  const copy = chart.cloneNode(true), drawn = chart.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((one, k) => {
    const style = getComputedStyle(drawn[k]);
    for (const name of DRAWN_WITH) one.setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", SVG);
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: getComputedStyle(document.body).backgroundColor }));
  return new XMLSerializer().serializeToString(copy);
}

function saveSvg(chart, name) {
  saveFile(`${name}.svg`, new Blob([standalone(chart)], { type: "image/svg+xml" }));
}

function savePng(chart, name) {
  const picture = new Image(), scale = 2;
  picture.onload = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: scale * chart.clientWidth, height: scale * chart.clientHeight });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => saveFile(`${name}.png`, blob), "image/png");
  };
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(chart))}`;
}

function ticks(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}

// Axes of a plot area; returns the scales and the parts drawn so far.
function axes(width, height, { x, y, xTicks, yTicks, xLabel, left = 42 }) {
  const area = { left, right: width - 12, top: 10, bottom: height - 34 };
  const sx = (value) => area.left + ((value - x[0]) / (x[1] - x[0] || 1)) * (area.right - area.left);
  const sy = (value) => area.bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (area.bottom - area.top);
  const parts = yTicks.map((tick) => [
    svg("line", { class: "grid", x1: area.left, x2: area.right, y1: sy(tick), y2: sy(tick) }),
    svg("text", { class: "tick", x: area.left - 6, y: sy(tick) + 4, "text-anchor": "end" }, String(tick)),
  ]).flat();
  parts.push(...xTicks.map((tick) => svg("text", { class: "tick", x: sx(tick), y: area.bottom + 15, "text-anchor": "middle" }, String(tick))));
  parts.push(svg("text", { class: "axis", x: (area.left + area.right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel));
  return { area, sx, sy, parts };
}

function hatch(id) {
  return svg("defs", {}, svg("pattern", { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 7 })));
}

function path(points, attributes) {
  let d = "", pen = "M";
  for (const [x, y] of points) {
    if (y === null) { pen = "M"; continue; }
    d += `${pen}${x.toFixed(1)},${y.toFixed(1)}`;
    pen = "L";
  }
  return svg("path", { d, fill: "none", ...attributes });
}

// Runs of layers where both ends are known, as closed shapes.
function band(low, high, sx, sy, attributes) {
  const runs = [[]];
  low.forEach((value, k) => {
    if (value === null || high[k] === null) runs.push([]);
    else runs.at(-1).push(k);
  });
  return runs.filter((run) => run.length).map((run) => {
    const outline = [...run.map((k) => [sx(k), sy(high[k])]), ...run.toReversed().map((k) => [sx(k), sy(low[k])])];
    return svg("path", { d: "M" + outline.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L") + "Z", ...attributes });
  });
}

function legend(entries) {
  return el("ul", { class: "legend" }, entries.map(([kind, text]) => el("li", {}, swatch(kind), text)));
}

function swatch(kind) {
  const shape = ["pos", "neg"].includes(kind)
    ? svg("rect", { x: 1, y: 2, width: 20, height: 9, class: kind })
    : svg("line", { x1: 1, x2: 21, y1: 7, y2: 7, class: "line " + kind });
  return svg("svg", { width: 22, height: 13, "aria-hidden": "true" }, shape);
}
