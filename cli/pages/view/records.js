// From the text of a file to checked records; every refusal says what is wrong and where.

class BadData extends Error {}

const kindOf = (value) =>
  value === null ? "null" : Array.isArray(value) ? "a list" : typeof value === "object" ? "an object"
    : typeof value === "string" ? "a text" : `a ${typeof value}`;
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const isObject = (value) => kindOf(value) === "an object";

// Returns {records, problems}: one bad record does not hide the good ones.
function readFile(name, text) {
  const records = [], problems = [];
  let values;
  try {
    values = parse(name, text);
  } catch (error) {
    if (!(error instanceof BadData)) throw error;
    return { records, problems: [`${name}: ${error.message}`] };
  }
  if (values.some((value) => isObject(value) && typeof value.event === "string")) {
    const stream = newStream();
    values.forEach((value, i) => collect(problems, `${name}: line ${i + 1}`, () => stream.add(value)));
    records.push(...stream.records);
  } else {
    values.forEach((value, i) => collect(problems, `${name}: record ${i + 1}`, () => {
      records.push(readRecord(value));
    }));
  }
  if (!records.length && !problems.length) {
    problems.push(`${name}: holds no records; give one object or a list of them`);
  }
  return { records, problems };
}

function collect(problems, where, read) {
  try {
    read();
  } catch (error) {
    if (!(error instanceof BadData)) throw error;
    problems.push(`${where} ${error.message}`);
  }
}

function parse(name, text) {
  const body = text.replace(/^\uFEFF/, "").trim();
  if (!body) throw new BadData("is empty");
  try {
    const value = JSON.parse(body);
    return Array.isArray(value) ? value : [value];
  } catch (error) {
    // Python writes NaN and Infinity, which JSON does not have; outside texts they become null.
    const mended = body.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (found) =>
      found[0] === '"' ? found : "null");
    try {
      const value = JSON.parse(mended);
      return Array.isArray(value) ? value : [value];
    } catch { /* told below, with the place in the text as it is */ }
    const lines = mended.split("\n").filter((line) => line.trim());
    const isLines = lines.length > 1 && (name.endsWith(".jsonl") || canParse(lines[0]));
    if (!isLines) throw new BadData(`is not JSON: ${error.message}`);
    return lines.map((line, i) => parseLine(line, i + 1));
  }
}

const canParse = (line) => {
  try { return isObject(JSON.parse(line)); } catch { return false; }
};

function parseLine(line, number) {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new BadData(`line ${number} is not JSON: ${error.message}`);
  }
}

function readRecord(value) {
  if (!isObject(value)) {
    throw new BadData(`is ${kindOf(value)}; give an object with prompt, response, tokens and trait_scores`);
  }
  const tokens = readTokens(value);
  const raw = readScores(value, "trait_scores" in value ? "trait_scores" : "projections", tokens.length);
  const metadata = value.metadata === undefined ? {} : value.metadata;
  if (!isObject(metadata)) throw new BadData(`has ${kindOf(metadata)} as "metadata"; give an object`);
  return {
    prompt: readText(value, "prompt", ""),
    response: readText(value, "response", tokens.join("")),
    tokens,
    raw,
    z: value.trait_zscores == null ? new Map() : readScores(value, "trait_zscores", tokens.length),
    dynamics: readDynamics(value.dynamics, tokens.length),
    metadata,
    steered: readSteered(value.steered),
    ...readSummary(value.summary ?? metadata.summary, value.any_trait),
    alternatives: readAlternatives(value.alternatives, tokens.length),
    coefficient: typeof value.coefficient === "number" ? value.coefficient : null,
    isComplete: true,
  };
}

function readText(value, key, missing) {
  const text = value[key];
  if (text == null) return missing;
  if (typeof text !== "string") throw new BadData(`has ${kindOf(text)} as "${key}"; give a text`);
  return text;
}

function readTokens(value) {
  if (!("tokens" in value)) throw new BadData(`has no "tokens"; it has ${keysOf(value)}`);
  if (!Array.isArray(value.tokens)) {
    throw new BadData(`has ${kindOf(value.tokens)} as "tokens"; give a list of texts`);
  }
  const wrong = value.tokens.findIndex((token) => typeof token !== "string");
  if (wrong >= 0) throw new BadData(`has ${kindOf(value.tokens[wrong])} at tokens[${wrong}]; give a text`);
  return [...value.tokens];
}

// The first per-token monitors wrote averages of the scores among them; the page makes its own.
const isAverage = (trait) => /_running_avg_\d+$/.test(trait);

function readScores(value, key, nTokens) {
  const scores = value[key];
  if (scores === undefined) throw new BadData(`has no "trait_scores"; it has ${keysOf(value)}`);
  if (!isObject(scores)) {
    throw new BadData(`has ${kindOf(scores)} as "${key}"; give {"trait": [one number per token]}`);
  }
  const found = new Map();
  for (const [trait, list] of Object.entries(scores)) {
    if (isAverage(trait)) continue;
    const where = `${key}.${trait}`;
    if (!Array.isArray(list)) throw new BadData(`has ${kindOf(list)} at ${where}; give a list of numbers`);
    if (list.length !== nTokens) {
      throw new BadData(`has ${count(list.length, "score")} at ${where} for ${count(nTokens, "token")}; give one per token`);
    }
    const wrong = list.findIndex((score) => score !== null && typeof score !== "number");
    if (wrong >= 0) throw new BadData(`has ${kindOf(list[wrong])} at ${where}[${wrong}]; give a number or null`);
    found.set(trait, list.map((score) => (score === null ? NaN : score)));
  }
  if (!found.size) throw new BadData(`has no trait in "${key}"; give at least one`);
  return found;
}

// Dynamics are marks upon the scores: an unusable one is left out rather than the record refused.
function readDynamics(value, nTokens) {
  const found = new Map();
  if (!isObject(value)) return found;
  const within = (index) => (Number.isInteger(index) && index >= 0 && index < nTokens ? index : null);
  for (const [trait, given] of Object.entries(value)) {
    if (!isObject(given)) continue;
    const free = isObject(given.scale_free) ? given.scale_free : {};
    found.set(trait, {
      commitment: within(given.commitment_point),
      peakVelocity: given.peak_velocity,
      meanVelocity: given.avg_velocity,
      persistence: given.persistence,
      step: within(free.commitment_point),
      stepP: free.p_value,
    });
  }
  return found;
}

// z and flag of the whole response by trait, as its command judged it; `flag` is null where it is
// not known, else whether any trait is flagged.
function readSummary(value, anyTrait) {
  const summary = new Map();
  for (const [trait, given] of isObject(value) ? Object.entries(value) : []) {
    if (isObject(given)) summary.set(trait, { z: given.z, flagged: given.flagged });
  }
  const flags = [...summary.values()].map(({ flagged }) => flagged).filter((one) => typeof one === "boolean");
  const any = isObject(anyTrait) && typeof anyTrait.flagged === "boolean" ? anyTrait.flagged : null;
  return { summary, flag: any ?? (flags.length ? flags.includes(true) : null) };
}

// What else the model could have said at each token: [[text, probability]], likeliest first.
function readAlternatives(value, nTokens) {
  if (!Array.isArray(value) || value.length !== nTokens) return null;
  const isOne = (one) => Array.isArray(one) && typeof one[0] === "string" && typeof one[1] === "number";
  return value.map((list) => (Array.isArray(list) ? list.filter(isOne) : []));
}

function readSteered(value) {
  if (value == null) return [];
  return (Array.isArray(value) ? value : [value]).map((one, i) => {
    try {
      return readRecord(one);
    } catch (error) {
      if (error instanceof BadData) throw new BadData(`cannot be used: its steered response ${i + 1} ${error.message}`);
      throw error;
    }
  });
}

function keysOf(value) {
  const keys = Object.keys(value).slice(0, 8);
  return keys.length ? keys.map((key) => `"${key.slice(0, 40)}"`).join(", ") : "no keys at all";
}
