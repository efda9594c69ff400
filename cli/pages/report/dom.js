// Elements, numbers and their provenance. Everything that a model wrote goes through textContent.

const PAGE = JSON.parse(document.getElementById("data").textContent);

// el("p", {class: "x"}, "text", child): strings become text, never markup.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function at(path) {
  return path.split("/").reduce((value, key) => (value === null || value === undefined ? null : value[key]), PAGE);
}

function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

// A number of the embedded data: data-from says which one, so that a test can compare them all.
function num(path, digits, attributes) {
  const value = at(path);
  return el("span", { class: "num", "data-from": path, "data-digits": digits, ...attributes }, fixed(value, digits));
}

function interval(path, digits) {
  if (!at(path)) return el("span", { class: "interval" }, "");
  return el("span", { class: "interval" }, "[", num(path + "/0", digits), ", ", num(path + "/1", digits), "]");
}

function withInterval(valuePath, intervalPath, digits) {
  return el("span", { class: "estimate" }, num(valuePath, digits), " ", interval(intervalPath, digits));
}

const MARKS = { usable: "✓", "usable with a doubt": "✓", weak: "!", "do not use": "✕" };

function verdictBadge(verdict) {
  return el("span", { class: "verdict " + verdict.replaceAll(" ", "-") },
    el("span", { class: "mark", "aria-hidden": "true" }, MARKS[verdict] || "?"), " " + verdict);
}

function section(title, explanation, ...children) {
  const id = title.toLowerCase().replace(/[^a-z]+/g, "-");
  return el("section", { id }, el("h2", {}, title), explanation ? el("p", { class: "explain" }, explanation) : null, ...children);
}

// What is not measured yet says what would fill it.
function emptyView(title, what, how) {
  return el("div", { class: "empty" }, el("h3", {}, title), el("p", {}, what), el("p", {}, how));
}

// What may be wider than the page: where it is, the keyboard reaches and scrolls it.
function scrolled(child) {
  const box = el("div", { class: "scroll" }, child);
  new ResizeObserver(() => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }).observe(box);
  return box;
}

function table(headings, rows, attributes) {
  return scrolled(el("table", attributes || {},
    el("thead", {}, el("tr", {}, headings.map((heading) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, k) =>
      el(k === 0 ? "th" : "td", k === 0 ? { scope: "row" } : { "data-label": headings[k] }, cell)))))));
}

function layerName(layer, last) {
  if (layer === 0) return "0 (embedding)";
  return layer === last ? layer + " (after block " + (layer - 1) + ", last)" : layer + " (after block " + (layer - 1) + ")";
}

function copyBlock(text) {
  const button = el("button", { type: "button", class: "copy", onclick: () => {
    navigator.clipboard.writeText(text).then(() => { button.textContent = "copied"; }, () => { button.textContent = "select and copy"; });
  } }, "copy");
  return el("div", { class: "code" }, el("pre", {}, text), button);
}
