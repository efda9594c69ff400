// Which response is shown, and which one beside it: other strengths, or another model, on one prompt.

const MOST_RESPONSES = 200;

function startChoices() {
  byId("previous-prompt").addEventListener("click", () => stepRecord(-1));
  byId("next-prompt").addEventListener("click", () => stepRecord(1));
  byId("shown-choice").addEventListener("change", (event) => chooseResponse("record", event.target.value));
  byId("beside-choice").addEventListener("change", (event) => chooseResponse("beside", event.target.value));
  onChange(["data", "record"], paintChoices);
  onChange(["record"], paintPrompt);
}

// Adds a data set, or puts it in the place of the one with its name; its number.
function addDataSet(dataSet) {
  const same = state.dataSets.findIndex((other) => other.name === dataSet.name);
  if (same >= 0) state.dataSets[same] = dataSet;
  else state.dataSets.push(dataSet);
  for (const record of dataSet.records) traitsOf(record).forEach(lookOf);
  return same >= 0 ? same : state.dataSets.length - 1;
}

// Shows a record of a data set; what was set beside the one before is sought for this one too.
function chooseRecord(set, index, { wanted = state.wanted } = {}) {
  const home = state.dataSets[set]?.records[index];
  if (!home) return;
  state.dataSet = set;
  state.home = home;
  const found = responsesTo(home);
  const named = (name) => found.find((one) => one.name === name)?.record;
  state.record = named(wanted.record) ?? home;
  const other = wanted.beside === null ? null : named(wanted.beside) ?? home.steered[0] ?? null;
  state.beside = other === state.record ? null : other;
  state.token = 0;
  const traits = traitsOf(state.record);
  const own = String(state.record.metadata.trait ?? "");
  if (!traits.includes(state.trait)) state.trait = traits.includes(own) ? own : traits[0] ?? null;
  byId("empty").hidden = true;
  byId("content").hidden = false;
  byId("png").disabled = byId("copy-address").disabled = false;
  afterRecord();
}

function chooseResponse(place, value) {
  const one = responsesTo(state.home)[Number(value)];
  state[place] = one?.record ?? null;
  if (state.beside === state.record) state.beside = null;
  state.wanted = { ...state.wanted, [place]: one?.name ?? null };
  afterRecord();
}

function afterRecord() {
  state.view = null;
  state.token = Math.min(state.token, Math.max(0, nTokens() - 1));
  if (!state.isWindowChosen) state.window = nTokens() > 100 ? 10 : 1;
  changed("record", "token", "trait", "series");
}

// All responses to a record's prompt: its own first, its steered ones, then those of other records
// of the same prompt, in this data set and the others. `name` is the same for like ones of another
// prompt, so that a comparison goes on with the next.
function responsesTo(home) {
  const own = [{ record: home, name: "as recorded", text: "as recorded" },
    ...home.steered.map((record, i) => ({ record, name: steeredName(record, i), text: steeredName(record, i) }))];
  const others = [];
  for (const { name, records } of state.dataSets) {
    const same = records.filter((record) => record !== home && record.prompt === home.prompt);
    for (const [i, record] of same.entries()) {
      if (own.length + others.length >= MOST_RESPONSES) break;
      const about = same.length < 2 ? "" : [record.metadata.trait, record.metadata.polarity].filter((v) => v != null).join(", ");
      const called = `${name}${same.length > 1 ? ` (${i + 1} of ${same.length})` : ""}`;
      others.push({ record, name: called, text: about ? `${called}: ${about}` : called });
      record.steered.forEach((one, k) => {
        const text = `${called}, ${steeredName(one, k)}`;
        others.push({ record: one, name: text, text });
      });
    }
  }
  return [...own, ...others];
}

function paintChoices() {
  const found = responsesTo(state.home);
  const options = found.map(({ text }, i) => [String(i), text]);
  const at = (record) => String(found.findIndex((one) => one.record === record));
  byId("compare").hidden = found.length < 2;
  fillSelect(byId("shown-choice"), options, at(state.record));
  fillSelect(byId("beside-choice"), [["-1", "nothing"], ...options], at(state.beside));
}

// What a shown response is called above its text.
function responseName(record) {
  if (record === state.home) return isOfOtherSet(state.beside) ? state.dataSets[state.dataSet].name : "Response";
  const one = responsesTo(state.home).find((other) => other.record === record);
  if (!one) return "Response";
  return isOfOtherSet(record) ? one.text : sentence(one.text);
}

const isOfOtherSet = (record) => record !== null && record !== state.home && !state.home.steered.includes(record);

function steeredName({ coefficient, metadata }, index) {
  const trait = metadata.trait ?? "";
  const strength = coefficient === null ? "" : ` ${coefficient > 0 ? "+" : ""}${String(coefficient).replace("-", "−")}`;
  return trait || strength ? `steered ${trait}${strength}`.replace("  ", " ") : `steered ${index + 1}`;
}

// How the one beside is called in figures and lines.
const besideWord = () => (state.home?.steered.includes(state.beside) ? "steered" : "beside");

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
