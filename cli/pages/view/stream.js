// The event protocol of a response being written; docs/page.md describes it.

function newStream() {
  const records = [], byId = new Map();

  function open(event) {
    const id = event.id ?? 0;
    const record = {
      prompt: readText(event, "prompt", ""), response: "", tokens: [], raw: new Map(), z: new Map(),
      dynamics: new Map(), metadata: isObject(event.metadata) ? event.metadata : {}, steered: [],
      summary: new Map(), flag: null, alternatives: null,
      coefficient: typeof event.coefficient === "number" ? event.coefficient : null, isComplete: false,
    };
    const other = event.beside === undefined ? null : byId.get(event.beside);
    if (other) other.steered.push(record);
    else records.push(record);
    byId.set(id, record);
    return record;
  }

  function token(event) {
    if (typeof event.token !== "string") {
      throw new BadData(`has ${kindOf(event.token)} as "token"; give a text`);
    }
    if (!isObject(event.trait_scores)) throw new BadData('has no "trait_scores"; give {"trait": number}');
    const record = byId.get(event.id ?? 0) ?? open(event);
    record.tokens.push(event.token);
    record.response += event.token;
    extend(record.raw, event.trait_scores, record.tokens.length);
    if (isObject(event.trait_zscores)) extend(record.z, event.trait_zscores, record.tokens.length);
  }

  function done(event) {
    const record = byId.get(event.id ?? 0);
    if (!record) throw new BadData("is done before its first token");
    record.isComplete = true;
    record.response = readText(event, "response", record.response);
    record.dynamics = readDynamics(event.dynamics, record.tokens.length);
    if (isObject(event.metadata)) record.metadata = { ...record.metadata, ...event.metadata };
    Object.assign(record, readSummary(record.metadata.summary));
    record.alternatives = readAlternatives(event.alternatives, record.tokens.length);
  }

  function add(event) {
    if (!isObject(event)) throw new BadData(`is ${kindOf(event)}; give an object with "event"`);
    if (event.event === "start") open(event);
    else if (event.event === "token") token(event);
    else if (event.event === "done") done(event);
    else if (event.event !== "end") {
      throw new BadData(`has the unknown event "${String(event.event).slice(0, 40)}"; use start, token, done or end`);
    }
  }

  return { records, add };
}

// A trait that begins or pauses in mid-response has no score for the other tokens.
function extend(scores, given, nTokens) {
  for (const [trait, score] of Object.entries(given)) {
    if (!scores.has(trait)) scores.set(trait, []);
    const list = scores.get(trait);
    while (list.length < nTokens - 1) list.push(NaN);
    list.push(typeof score === "number" ? score : NaN);
  }
  for (const list of scores.values()) if (list.length < nTokens) list.push(NaN);
}
