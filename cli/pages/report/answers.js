// Every response of the run: unpacked once, then found and sorted by its number in the whole run.

const PARTS = { extraction: "extraction", evaluation: "held-out evaluation", "steering-1": "search 1", "steering-2": "search 2", "steering-3": "search 3", confirmation: "confirmation" };
const NUMBERS = { trait_score: "trait score", coherence_score: "coherence", worth: "trait x coherence / 100", projection: "projection", projection_plain: "projection, no instruction", projection_opposite: "projection, opposite instruction", n_tokens: "tokens", strength: "strength", layer: "layer" };
const CAN_UNPACK = typeof DecompressionStream === "function";

const store = { n: 0, trait: null, at: null, numbers: new Map(), texts: null, keys: null };

async function unpackAnswers() {
  const text = document.getElementById("answers-data").textContent;
  if (!text) return;
  if (!CAN_UNPACK) throw new Error("this browser is too old to unpack them");
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const tables = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  store.n = tables.reduce((n, one) => n + one.n, 0);
  [store.trait, store.at] = [new Int32Array(store.n), new Int32Array(store.n)];
  let g = 0;
  tables.forEach((one, k) => {
    PAGE.traits[k].answers = one;
    for (let i = 0; i < one.n; i++, g++) [store.trait[g], store.at[g]] = [k, i];
  });
}

const tableOf = (g) => PAGE.traits[store.trait[g]].answers;
const traitOf = (g) => PAGE.traits[store.trait[g]].metrics.trait;
const pathOf = (g, name) => `traits/${store.trait[g]}/answers/${name}/${store.at[g]}`;

// One value of an answer; columns of few values hold numbers of them.
function valueOf(g, name) {
  if (name === "worth") {
    const [trait, coherence] = [valueOf(g, "trait_score"), valueOf(g, "coherence_score")];
    return trait === null || coherence === null ? null : (trait * coherence) / 100;
  }
  const column = tableOf(g)[name];
  return Array.isArray(column) ? column[store.at[g]] : column.values[column.of[store.at[g]]];
}

function answerOf(key) {
  if (!store.keys) {
    store.keys = new Map();
    for (let g = 0; g < store.n; g++) store.keys.set(valueOf(g, "key"), g);
  }
  return store.keys.get(key) ?? -1;
}

// All values of a column as numbers, NaN where there is none.
function numbersOf(name) {
  if (!store.numbers.has(name)) {
    store.numbers.set(name, Float64Array.from({ length: store.n }, (_, g) => valueOf(g, name) ?? NaN));
  }
  return store.numbers.get(name);
}

// Ascending or descending; those without a number come last either way, ties as they were planned.
function sortAnswers(found, name, isDown) {
  if (!NUMBERS[name]) return isDown ? found.toReversed() : found;
  const numbers = numbersOf(name), sign = isDown ? -1 : 1;
  const [known, unknown] = [found.filter((g) => !Number.isNaN(numbers[g])), found.filter((g) => Number.isNaN(numbers[g]))];
  known.sort((a, b) => sign * (numbers[a] - numbers[b]) || a - b);
  return known.concat(unknown);
}

function searchedText(g) {
  store.texts ??= new Array(store.n);
  return store.texts[g] ??= ["response", "question", "instruction", "reason", "key"].map((name) => valueOf(g, name)).join("\n").toLowerCase();
}

// The numbers of the answers that fit: words anywhere, and each filter its own value.
function findAnswers({ find, of, part, polarity, status, push, question }) {
  const words = find.toLowerCase().split(/\s+/).filter(Boolean), found = [];
  const filters = [["part", part], ["polarity", polarity], ["status", status], ["direction", push], ["question", question]].filter(([, value]) => value);
  for (let g = 0; g < store.n; g++) {
    if (of && traitOf(g) !== of) continue;
    if (!filters.every(([name, value]) => valueOf(g, name) === value || (name === "part" && value === "steering" && valueOf(g, "direction") !== null))) continue;
    if (words.length && !words.every((word) => searchedText(g).includes(word))) continue;
    found.push(g);
  }
  return found;
}

// What was done to the model, in words.
function pushWords(g) {
  const direction = valueOf(g, "direction"), polarity = valueOf(g, "polarity");
  if (direction === "none") return "no push";
  if (direction) return `${direction === "random" ? "random vector" : "vector"}, layer ${valueOf(g, "layer")}, strength ${fixed(valueOf(g, "strength"), 2)}`;
  return polarity === "plain" ? "no instruction" : `${polarity === "positive" ? "+ positive" : "− negative"} instruction`;
}

// The same, as short as a row of the list needs it.
function pushShort(g) {
  const direction = valueOf(g, "direction");
  return direction && direction !== "none" ? `${direction} ×${fixed(valueOf(g, "strength"), 2)} @ ${valueOf(g, "layer")}` : pushWords(g);
}

// Answers to the same question of the same trait: from none to the strongest push.
function siblingsOf(g) {
  const isMadeFrom = (one) => valueOf(one, "part") === "extraction";
  const order = (one) => ["none", null, "vector", "random"].indexOf(valueOf(one, "direction"));
  const found = [];
  for (let one = 0; one < store.n; one++) {
    if (store.trait[one] === store.trait[g] && valueOf(one, "question") === valueOf(g, "question") && isMadeFrom(one) === isMadeFrom(g)) found.push(one);
  }
  const by = (name) => (a, b) => (valueOf(a, name) ?? 0) - (valueOf(b, name) ?? 0);
  return found.sort((a, b) => order(a) - order(b) || by("layer")(a, b) || by("strength")(a, b) || a - b);
}

const CSV_COLUMNS = ["key", "part", "polarity", "direction", "layer", "strength", "instruction", "question", "response", "trait_score", "coherence_score", "projection", "projection_opposite", "projection_plain", "n_tokens", "finish", "status", "reason"];

function answersCsv(found) {
  return csvOf([["trait", ...CSV_COLUMNS], ...found.map((g) => [traitOf(g), ...CSV_COLUMNS.map((name) => valueOf(g, name))])]);
}
