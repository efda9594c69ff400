// The list of records: searched, filtered by data set, trait, polarity and flag, sorted by z.

const RECORD_ROW = 46, ROWS_SHOWN = 5;
const LINE_LENGTH = 240;
const ORDERS = ["", "high", "low", "any"];
const FLAGS = ["", "any", "trait", "none"];

const list = { rows: null, items: [], values: new Map() };

function startList() {
  list.rows = rowList(byId("records"), {
    rowHeight: RECORD_ROW, draw: recordRow, choose: ({ set, index }) => chooseRecord(set, index),
  });
  byId("search").addEventListener("input", (event) => filterBy("text", event.target.value));
  for (const name of ["set", "trait", "polarity", "flag", "order"]) {
    byId(`by-${name}`).addEventListener("change", (event) => filterBy(name, event.target.value));
  }
  onChange(["data", "list"], paintFilters);
  onChange(["data", "list", "units"], layOutList);
  onChange(["trait"], () => { if (list.isSortedFor !== state.trait) layOutList(); });
  onChange(["record"], markRecord);
}

function filterBy(name, value) {
  state.filter[name] = value;
  changed("list");
}

// The records that fit all filters, {record, set, index}, in the chosen order.
function matching() {
  const { text, set, trait, polarity, flag } = state.filter;
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  state.dataSets.forEach(({ name, records }, k) => {
    if (set && name !== set) return;
    records.forEach((record, index) => {
      if (trait && String(record.metadata.trait) !== trait) return;
      if (polarity && String(record.metadata.polarity) !== polarity) return;
      if (flag && !fitsFlag(record, flag)) return;
      if (words.length && !words.every((word) => searched(record).includes(word))) return;
      found.push({ record, set: k, index });
    });
  });
  return found;
}

function fitsFlag(record, flag) {
  if (flag === "none") return record.flag === false;
  return flag === "any" ? record.flag === true : record.summary.get(state.trait)?.flagged === true;
}

// A live record grows: its text is made anew until it is whole.
function searched(record) {
  if (record.searched !== undefined && record.isComplete) return record.searched;
  const about = Object.values(record.metadata).filter((value) => typeof value === "string");
  record.searched = [record.prompt, record.response, ...about].join("\n").toLowerCase();
  return record.searched;
}

// The number of a record's row: z of the heat map's trait, or of the highest of any where that is
// sorted by. Where no listed record has a z it is the mean score; one without is NaN and comes last.
function layOutList() {
  if (!state.home) return;
  const items = matching(), order = state.filter.order;
  list.isZ = state.units === "z" && items.some(({ record }) => record.z.size > 0 || record.summary.size > 0);
  list.isSortedFor = state.trait;
  const value = order === "any" ? highestOf : (record) => valueOf(record, state.trait);
  list.values = new Map(items.map(({ record }) => [record, value(record)]));
  const number = ({ record }) => list.values.get(record);
  const last = (one) => (Number.isFinite(one) ? one : order === "low" ? Infinity : -Infinity);
  if (order === "low") items.sort((a, b) => last(number(a)) - last(number(b)) || 0);
  else if (order) items.sort((a, b) => last(number(b)) - last(number(a)) || 0);
  list.items = items;
  const at = chosenRow();
  byId("records").style.height = `${Math.min(ROWS_SHOWN, Math.max(1, items.length)) * RECORD_ROW + 6}px`;
  list.rows.show(items, at);
  list.rows.reveal(at);
  paintCount(at);
}

// What the file says of the whole response is its z: of a mean over so many tokens. Without it, the
// mean of the tokens' z.
function valueOf(record, trait) {
  if (list.isZ) {
    const z = record.summary.get(trait)?.z;
    return typeof z === "number" ? z : meanOf(record, "z", trait);
  }
  return meanOf(record, "raw", trait);
}

const highestOf = (record) => Math.max(-Infinity, ...finite(traitsOf(record).map((trait) => valueOf(record, trait))));

function meanOf(record, kind, trait) {
  if (!record.means || !record.isComplete) record.means = new Map();
  const key = `${kind} ${trait}`;
  if (!record.means.has(key)) record.means.set(key, summary(record[kind].get(trait) ?? [])?.mean ?? NaN);
  return record.means.get(key);
}

const chosenRow = () => list.items.findIndex(({ record }) => record === state.home);

function markRecord() {
  const at = chosenRow();
  list.rows.mark(at);
  list.rows.reveal(at);
  paintCount(at);
}

function paintCount(at = chosenRow()) {
  const all = state.dataSets.reduce((n, { records }) => n + records.length, 0);
  const n = list.items.length;
  const what = state.filter.order === "any" ? "highest of any trait" : state.trait ?? "";
  const few = n === all ? count(n, "record") : `${n} of ${count(all, "record")}`;
  byId("list-count").textContent = `${few}${at < 0 ? "" : `, number ${at + 1} is shown`}; the figure is ` +
    `the ${list.isZ ? "z" : "mean score"} of ${what}`.replace("z of highest", "highest z").replace("score of highest", "score, highest");
  byId("previous-prompt").disabled = !n || at === 0;
  byId("next-prompt").disabled = !n || at === n - 1;
}

// From a record that the filters leave out, a step leads to the first that they leave.
function stepRecord(step) {
  const at = chosenRow();
  const next = list.items[at < 0 ? 0 : at + step];
  if (next) chooseRecord(next.set, next.index);
}

function recordRow({ record, set, index }) {
  const z = list.values.get(record);
  const named = state.dataSets.length > 1 ? `${state.dataSets[set].name} ` : "";
  const about = [record.metadata.trait, record.metadata.polarity,
    record.steered.length ? `${record.steered.length} steered` : null].filter((v) => v != null).join(", ");
  return [
    element("span", { className: "row-prompt", text: oneLine(record.prompt) || "(empty prompt)" }),
    element("span", { className: "row-value", text: show(z, 2) }),
    element("span", { className: "row-answer", text: oneLine(record.response) || "(empty response)" }),
    element("span", { className: "row-about" }, [
      ...(record.flag === true ? [element("b", { className: "flag", text: "⚑ flagged " })] : []),
      [`${named}${index + 1}`, about].filter(Boolean).join(" · ")]),
  ];
}

const oneLine = (text) => text.slice(0, LINE_LENGTH).replace(/\s+/g, " ").trim();

function paintFilters() {
  const sets = state.dataSets.map(({ name, records }) => [name, `${name} (${records.length})`]);
  byId("by-set-label").hidden = sets.length < 2;
  fillSelect(byId("by-set"), [["", `all (${sets.length})`], ...sets], state.filter.set);
  for (const key of ["trait", "polarity"]) {
    const values = new Set(state.dataSets.flatMap(({ records }) => records.map(({ metadata }) => metadata[key])));
    values.delete(undefined);
    values.delete(null);
    byId(`by-${key}-label`).hidden = !values.size;
    fillSelect(byId(`by-${key}`), [["", "all"], ...[...values].map(String).sort().map((v) => [v, v])], state.filter[key]);
  }
  byId("by-flag-label").hidden = !state.dataSets.some(({ records }) => records.some(({ flag }) => flag !== null));
  for (const key of ["flag", "order"]) byId(`by-${key}`).value = state.filter[key];
  if (byId("search").value !== state.filter.text) byId("search").value = state.filter.text;
}
