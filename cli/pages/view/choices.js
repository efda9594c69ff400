// Which data set, prompt and steered response is shown.

const PROMPT_LENGTH = 80;

function startChoices() {
  byId("data-set").addEventListener("change", (event) => chooseDataSet(Number(event.target.value)));
  byId("trait-filter").addEventListener("change", (event) => filterBy("trait", event.target.value));
  byId("polarity-filter").addEventListener("change", (event) => filterBy("polarity", event.target.value));
  byId("prompt-choice").addEventListener("change", (event) => chooseRecord(Number(event.target.value)));
  byId("previous-prompt").addEventListener("click", () => stepPrompt(-1));
  byId("next-prompt").addEventListener("click", () => stepPrompt(1));
  byId("steered-choice").addEventListener("change", (event) => {
    state.steered = Number(event.target.value);
    afterRecord();
  });
  onChange(["data", "record"], paintChoices);
  onChange(["record"], paintPrompt);
}

// Adds a data set, or puts it in the place of the one with its name; shows it.
function addDataSet(dataSet) {
  const same = state.dataSets.findIndex((other) => other.name === dataSet.name);
  if (same >= 0) state.dataSets[same] = dataSet;
  else state.dataSets.push(dataSet);
  for (const record of dataSet.records) traitsOf(record).forEach(lookOf);
  return same >= 0 ? same : state.dataSets.length - 1;
}

function chooseDataSet(index) {
  state.dataSet = index;
  state.filter = { trait: "", polarity: "" };
  chooseRecord(0);
}

function filterBy(key, value) {
  state.filter[key] = value;
  const matching = matchingRecords();
  if (!matching.some(([, record]) => record === state.record)) chooseRecord(matching[0]?.[0] ?? 0);
  else changed("data");
}

function chooseRecord(index) {
  state.record = state.dataSets[state.dataSet].records[index] ?? null;
  if (!state.record) return;
  state.steered = state.record.steered.length ? 0 : -1;
  state.token = 0;
  const traits = traitsOf(state.record);
  const own = String(state.record.metadata.trait ?? "");
  if (!traits.includes(state.trait)) state.trait = traits.includes(own) ? own : traits[0] ?? null;
  byId("empty").hidden = true;
  byId("content").hidden = false;
  byId("png").disabled = false;
  afterRecord();
}

function afterRecord() {
  state.view = null;
  state.token = Math.min(state.token, Math.max(0, nTokens() - 1));
  if (!state.isWindowChosen) state.window = nTokens() > 100 ? 10 : 1;
  changed("record", "token", "trait", "series");
}

function matchingRecords() {
  const { records } = state.dataSets[state.dataSet];
  const fits = ([, { metadata }]) => ["trait", "polarity"].every(
    (key) => !state.filter[key] || String(metadata[key]) === state.filter[key]);
  return [...records.entries()].filter(fits);
}

function stepPrompt(step) {
  const matching = matchingRecords();
  const at = matching.findIndex(([, record]) => record === state.record) + step;
  if (matching[at]) chooseRecord(matching[at][0]);
}

function paintChoices() {
  fillSelect(byId("data-set"), state.dataSets.map(({ name, records }, i) =>
    [String(i), `${name} (${records.length})`]), String(state.dataSet));
  const { records } = state.dataSets[state.dataSet];
  for (const key of ["trait", "polarity"]) {
    const values = [...new Set(records.map((record) => record.metadata[key]).filter((v) => v != null).map(String))];
    byId(`${key}-filter-label`).hidden = values.length === 0;
    fillSelect(byId(`${key}-filter`), [["", "all"], ...values.sort().map((v) => [v, v])], state.filter[key]);
  }
  const matching = matchingRecords();
  const at = matching.findIndex(([, record]) => record === state.record);
  fillSelect(byId("prompt-choice"), matching.map(([i, record]) => [String(i), promptName(i, record)]),
    String(matching[at]?.[0] ?? ""));
  byId("previous-prompt").disabled = at <= 0;
  byId("next-prompt").disabled = at < 0 || at >= matching.length - 1;
  const { steered } = state.record;
  byId("steered-label").hidden = !steered.length;
  fillSelect(byId("steered-choice"), [["-1", "nothing"], ...steered.map((r, i) => [String(i), steeredName(r, i)])],
    String(state.steered));
}

function promptName(index, { prompt, metadata }) {
  const line = prompt.replace(/\s+/g, " ").trim() || "(empty prompt)";
  const short = line.length > PROMPT_LENGTH ? `${line.slice(0, PROMPT_LENGTH)}…` : line;
  const trait = metadata.trait == null ? "" : ` [${metadata.trait}]`;
  const polarity = metadata.polarity == null ? "" : ` (${metadata.polarity})`;
  return `${index + 1}. ${short}${trait}${polarity}`;
}

function steeredName({ coefficient, metadata }, index) {
  const trait = metadata.trait ?? "";
  const strength = coefficient === null ? "" : ` ${coefficient > 0 ? "+" : ""}${String(coefficient).replace("-", "−")}`;
  return trait || strength ? `steered ${trait}${strength}`.replace("  ", " ") : `steered ${index + 1}`;
}

function paintPrompt() {
  const { prompt, metadata } = state.record;
  byId("prompt-text").textContent = prompt;
  byId("prompt-box").hidden = !prompt;
  const entries = Object.entries(metadata);
  byId("about-record").hidden = !entries.length;
  byId("metadata").replaceChildren(...entries.flatMap(([key, value]) => [
    element("dt", { text: key }),
    element("dd", { text: typeof value === "string" ? value : JSON.stringify(value) }),
  ]));
}
