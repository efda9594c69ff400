// What is chosen, and who repaints when it changes.

const state = {
  dataSets: [],      // {name, records, isLive}
  dataSet: 0,
  filter: { text: "", set: "", trait: "", polarity: "", flag: "", order: "" },
  home: null,        // the record that is chosen in the list
  record: null,      // it, or one of the other responses to its prompt
  beside: null,      // another of them, or null
  wanted: {},        // names of the two as a person chose them; a `beside` of null is nothing
  token: 0,
  trait: null,       // the one the heat map shows
  hidden: new Set(),
  units: "z",         // where the records have it
  series: "scores",
  window: 1,
  isWindowChosen: false,
  view: null,        // [first, last] token of the line chart; null shows all
};

const painters = [];
const dirty = new Set();
let isScheduled = false;

// `paint` runs in the next frame after a change of one of `kinds`, in the order of registration.
// Kinds: data, list, record, tokens (a live response grew), token, trait, hidden, units, series, size.
function onChange(kinds, paint) {
  painters.push({ kinds: new Set(kinds), paint });
}

function changed(...kinds) {
  for (const kind of kinds) dirty.add(kind);
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    const now = new Set(dirty);
    dirty.clear();
    if (["record", "tokens", "units", "series"].some((kind) => now.has(kind))) drawn.clear();
    if (!state.record) return;
    for (const { kinds, paint } of painters) {
      if ([...kinds].some((kind) => now.has(kind))) paint();
    }
  });
}

const shownRecords = () => [state.record, state.beside].filter(Boolean);
const traitsOf = (record) => [...record.raw.keys()];
const shownTraits = () => traitsOf(state.record).filter((trait) => !state.hidden.has(trait));
const nTokens = () => Math.max(...shownRecords().map((record) => record.tokens.length));
// z only where every record on show has it: two units never share an axis.
const hasZ = () => shownRecords().every((record) => record.z.size > 0);
const units = () => (state.units === "z" && hasZ() ? "z" : "raw");
// A score as text, with this record's decimals.
const shown = (score) => {
  if (!drawn.has("decimals")) {
    drawn.set("decimals", decimalsFor(traitsOf(state.record).map((trait) => scoresOf(state.record, trait))));
  }
  return show(score, drawn.get("decimals"));
};
const scoresOf = (record, trait) => record[units()].get(trait) ?? [];

// A live response repaints fifty times a second; what people click on must not be rebuilt each time.
function onlyWhenLooksChange(build) {
  let before = null;
  return () => {
    const now = JSON.stringify([traitsOf(state.record), [...state.hidden], state.trait, units(),
      shownRecords().length, state.record.dynamics.size > 0, isDark()]);
    if (now !== before) build();
    before = now;
  };
}

function setToken(index) {
  const last = Math.max(0, nTokens() - 1);
  const next = Math.min(last, Math.max(0, index));
  if (next === state.token) return;
  state.token = next;
  if (state.view && (next < state.view[0] || next > state.view[1])) {
    const [first, end] = state.view;
    const start = Math.min(Math.max(0, next - ((end - first) >> 1)), Math.max(0, last - (end - first)));
    state.view = [start, start + end - first];
    changed("series");
  }
  changed("token");
}

function setTrait(trait) {
  state.trait = trait;
  if (state.hidden.delete(trait)) changed("hidden");
  changed("trait");
}

// What the line chart draws for a trait: velocity i stands at the token that brought the change.
const drawn = new Map();
function seriesOf(record, trait) {
  const key = `${record === state.record ? 0 : 1} ${trait}`;
  if (!drawn.has(key)) drawn.set(key, trailingMean(rawSeries(record, trait), state.window));
  return drawn.get(key);
}

function rawSeries(record, trait) {
  const scores = scoresOf(record, trait);
  if (state.series === "scores") return scores;
  const velocity = difference(scores);
  return state.series === "velocity" ? velocity : difference(velocity);
}
