// The answers of the whole run as one list: searched, filtered, sorted, each with an address.

const ANSWER_ROW = 70;
const SEARCH_WAIT_MS = 150;
const NO_FILTER = { find: "", of: "", part: "", polarity: "", status: "", push: "", question: "", order: "", down: "" };

// `filter` is what the address holds; `changed` is called when a person changes what is on show.
function answersView(filter, changed) {
  const shown = { found: [], answer: -1 };
  const box = el("div", { id: "answers", class: "list", "aria-label": "answers" }), detail = el("div", { class: "detail", "aria-live": "polite" });
  const count = el("p", { class: "dim", role: "status" }), about = el("p", { class: "chip", hidden: "" });
  const rows = rowList(box, { rowHeight: ANSWER_ROW, draw: answerRow, choose: (g) => { open(g); changed(); if (innerWidth < 760) detail.scrollIntoView({ block: "start" }); } });
  const find = el("input", { type: "search", placeholder: "search question, instruction, answer, key", "aria-label": "search answers" });
  const selects = {};
  let waiting = 0;
  find.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => set({ find: find.value }), SEARCH_WAIT_MS); });

  const choice = (name, label, values) => {
    selects[name] = el("select", { onchange: (event) => set({ [name]: event.target.value }) }, values.map(([value, text]) => el("option", { value }, text)));
    return el("label", {}, el("span", {}, label), selects[name]);
  };
  const down = el("button", { type: "button", onclick: () => set({ down: filter.down ? "" : "1" }) });
  const controls = el("div", { class: "controls" }, find,
    choice("of", "trait", [["", "all"], ...PAGE.traits.map((one) => [one.metrics.trait, one.metrics.trait])]),
    choice("part", "part", [["", "all"], ["steering", "steering, all"], ...Object.entries(PARTS)]),
    choice("polarity", "polarity", ["", "positive", "negative", "plain"].map((one) => [one, one || "all"])),
    choice("push", "push", ["", "none", "vector", "random"].map((one) => [one, one || "all"])),
    choice("status", "status", ["", "kept", "dropped", "unscored"].map((one) => [one, one || "all"])),
    choice("order", "sort by", [["", "plan"], ...Object.entries(NUMBERS)]), down,
    el("button", { type: "button", onclick: () => saveFile(`${fileName(PAGE.name)}_answers.csv`, new Blob([answersCsv(shown.found)], { type: "text/csv" })) }, "CSV of these"));

  function set(values) {
    Object.assign(filter, values);
    layOut();
    changed();
  }

  function layOut() {
    if (find.value !== filter.find) find.value = filter.find;
    for (const [name, select] of Object.entries(selects)) select.value = filter[name];
    down.textContent = filter.down ? "▼ highest first" : "▲ lowest first";
    about.hidden = !filter.question;
    about.replaceChildren("only answers to: ", filter.question, " ", el("button", { type: "button", onclick: () => set({ question: "" }) }, "all questions"));
    shown.found = sortAnswers(findAnswers(filter), filter.order, Boolean(filter.down));
    const at = shown.found.indexOf(shown.answer);
    rows.show(shown.found, at);
    rows.reveal(at);
    count.textContent = `${shown.found.length} of ${store.n} answers`;
  }

  function open(g) {
    shown.answer = g;
    detail.replaceChildren(g < 0 ? el("p", { class: "dim" }, "Choose an answer: arrow keys move through the list.") : answerView(g, { go, set }));
  }

  // From a link within the page: its row is marked where the filters leave it.
  function go(g) {
    open(g);
    const at = shown.found.indexOf(g);
    rows.mark(at);
    rows.reveal(at);
    changed();
  }

  const land = (key) => {
    open(key ? answerOf(key) : -1);
    layOut();
    if (key && shown.answer < 0) detail.replaceChildren(el("p", {}, `There is no answer ${key} in this run.`));
  };
  const host = el("div", { class: "answers" }, controls, about, count, el("div", { class: "split" }, box, detail));
  return { host, land, key: () => (shown.answer < 0 ? "" : valueOf(shown.answer, "key")) };
}

function answerRow(g) {
  const figure = (name, label, digits) => el("span", {}, el("span", { class: "dim" }, `${label} `), num(pathOf(g, name), digits));
  return [
    el("span", { class: "row-who" }, el("b", {}, traitOf(g)), ` ${PARTS[valueOf(g, "part")] || valueOf(g, "part")}, ${pushShort(g)}`, valueOf(g, "status") === "kept" ? "" : el("span", { class: "fell" }, `, ${valueOf(g, "status")}`)),
    el("span", { class: "row-scores" }, figure("trait_score", "trait", 0), figure("coherence_score", "coherence", 0), valueOf(g, "projection") === null ? null : figure("projection", "proj.", 2)),
    el("span", { class: "row-text" }, valueOf(g, "response").slice(0, 260).replace(/\s+/g, " ") || "(empty)"),
  ].filter(Boolean);
}
