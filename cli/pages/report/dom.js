// Elements, numbers and their provenance. Everything that a model wrote goes through textContent.

const NARROW = 760;
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

// A verdict whose tests are still to come says so.
function verdictWords(m) {
  return m.verdict + (m.is_to_be_checked ? ", not yet checked" : "");
}

function verdictBadge(m) {
  return el("span", { class: "verdict " + m.verdict.replaceAll(" ", "-") },
    el("span", { class: "mark", "aria-hidden": "true" }, MARKS[m.verdict] || "?"), " " + verdictWords(m));
}

// Folded on a narrow window, so that a phone shows what there is before it shows it all.
function section(title, explanation, ...children) {
  const id = title.toLowerCase().replace(/[^a-z]+/g, "-");
  return el("section", { id }, el("details", { class: "fold", open: innerWidth > NARROW ? "" : null },
    el("summary", {}, el("h2", {}, title)), explanation ? el("p", { class: "explain" }, explanation) : null, ...children));
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

// With a button for its numbers as they are stored, not as they are rounded.
function table(headings, rows, attributes) {
  const whole = el("table", attributes || {},
    el("thead", {}, el("tr", {}, headings.map((heading) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, k) =>
      el(k === 0 ? "th" : "td", k === 0 ? { scope: "row" } : { "data-label": headings[k] }, cell))))));
  return withCsv(whole, headings.join(" "));
}

function withCsv(whole, name) {
  const save = () => saveFile(`${fileName(name)}.csv`, new Blob([tableCsv(whole)], { type: "text/csv" }));
  return el("div", {}, scrolled(whole), el("div", { class: "saves" }, el("button", { type: "button", onclick: save, "aria-label": `CSV of ${name.slice(0, 60)}` }, "CSV")));
}

// A cell's first number, and two columns more where a number of the column has an interval.
function tableCsv(whole) {
  const rows = [...whole.rows].map((row) => [...row.cells]);
  const has = rows[0].map((_, k) => rows.some((cells) => cells[k] && cells[k].querySelector(".estimate")));
  const numbers = (cell) => [...cell.querySelectorAll("[data-from]")].map((one) => at(one.dataset.from));
  return csvOf(rows.map((cells, r) => cells.flatMap((cell, k) => {
    const text = cell.textContent.trim();
    if (r === 0) return has[k] ? [text, `${text}, low`, `${text}, high`] : [text];
    const found = numbers(cell);
    if (has[k]) return cell.querySelector(".estimate") ? [0, 1, 2].map((i) => found[i] ?? null) : [text, null, null];
    return [found.length === 1 ? found[0] : text];
  })));
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
