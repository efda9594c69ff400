// The address of what is shown: data set, record, responses, token, trait, and how the list stands.

let address = null;
// Where an address leads that cannot be gone to yet: its file is not open.
let awaited = null;

function startPlace() {
  address = addressOf({ values: placeValues, land });
  startCopyAddress(byId("copy-address"), address);
  onChange(["data", "record", "token", "trait", "units", "list"], address.changed);
}

// Records and tokens are counted from 1, as on the page.
function placeValues() {
  if (!state.home) return awaited ?? {};
  const found = responsesTo(state.home), { records, name } = state.dataSets[state.dataSet];
  const at = (record) => found.findIndex((one) => one.record === record);
  return {
    set: name, record: records.indexOf(state.home) + 1, token: state.token + 1, trait: state.trait,
    // left out where they are what a record opens with
    shown: at(state.record) || null,
    beside: state.beside === (state.home.steered[0] ?? null) ? null : at(state.beside) + 1,
    units: units() === "z" ? null : units(),
    find: state.filter.text, in: state.filter.set, of: state.filter.trait, polarity: state.filter.polarity,
    flag: state.filter.flag, order: state.filter.order,
  };
}

function land(values) {
  awaited = values;
  landAwaited();
}

// Goes where the address says, once its data set is open; says so when its record is not there.
function landAwaited() {
  if (!awaited) return;
  const set = state.dataSets.findIndex(({ name }) => name === awaited.set);
  if (set < 0) return;
  const { record, token, trait, shown, beside, units: unit, find, in: within, of, polarity, flag, order } = awaited;
  awaited = null;
  const number = (text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : null);
  if (!state.dataSets[set].records[(number(record) ?? 1) - 1]) {
    say([`${state.dataSets[set].name} has no record ${record}: it was made from another file`]);
    return;
  }
  state.filter = { text: find ?? "", set: within ?? "", trait: of ?? "", polarity: polarity ?? "",
    flag: FLAGS.includes(flag) ? flag : "", order: ORDERS.includes(order) ? order : "" };
  state.units = unit === "raw" ? "raw" : "z";
  if (trait) state.trait = trait;
  chooseRecord(set, (number(record) ?? 1) - 1, { wanted: {} });
  const found = responsesTo(state.home);
  if (shown) state.record = found[number(shown)]?.record ?? state.home;
  if (beside) state.beside = found[number(beside) - 1]?.record ?? null;
  state.hidden.delete(state.trait);
  state.token = Math.min(Math.max(0, nTokens() - 1), Math.max(0, (number(token) ?? 1) - 1));
  changed("data", "record", "token", "trait", "units", "list", "series");
}
