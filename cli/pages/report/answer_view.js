// One answer whole: its scores, what they rest on, and the other answers to its question.

const SIBLINGS_SHOWN = 60;

function answerView(g, { go, set }) {
  const value = (name) => valueOf(g, name), trait = PAGE.traits[store.trait[g]], onto = trait.answers.projected_onto;
  const score = (metric) => [el("dt", {}, metric === "trait" ? "trait score" : "coherence"), el("dd", {}, value(`${metric}_score`) === null ? "unscored" : num(pathOf(g, `${metric}_score`), 1), " ",
    value(`${metric}_bounds`) ? interval(pathOf(g, `${metric}_bounds`), 1) : "")];
  const projection = (name, label) => value(name) === null ? [] : [el("dt", {}, label), el("dd", {}, num(pathOf(g, name), 3))];
  const copy = el("button", { type: "button" }, "Copy address");
  startCopyAddress(copy, address);
  return el("article", { id: "answer", "data-key": value("key") },
    el("h3", {}, traitOf(g), ", ", PARTS[value("part")] || value("part")), el("p", { class: "dim" }, value("key")),
    el("div", { class: "controls" }, copy, el("button", { type: "button", onclick: () => saveFile("answer.jsonl", new Blob([transcriptOf(g)], { type: "application/jsonl" })) }, "JSON"),
      el("button", { type: "button", onclick: () => set({ ...NO_FILTER, of: traitOf(g), question: value("question") }) }, "all answers to this question")),
    el("dl", { class: "kv" }, el("dt", {}, "question"), el("dd", {}, value("question")), el("dt", {}, "asked with"), el("dd", {}, pushWords(g), value("instruction") ? el("details", {}, el("summary", {}, "the instruction"), value("instruction")) : ""),
      score("trait"), score("coherence"), el("dt", {}, "status"), el("dd", {}, value("status"), value("reason") ? `: ${value("reason")}` : ""),
      onto ? [projection("projection", `projection (${onto.method}, layer ${onto.layer})`), projection("projection_opposite", "after the opposite instruction"), projection("projection_plain", "after no instruction")] : [],
      el("dt", {}, "tokens"), el("dd", {}, num(pathOf(g, "n_tokens"), 0), value("finish") ? `, ended by ${value("finish")}` : "")),
    el("div", { class: "response", lang: "" }, value("response") || "(empty)"),
    value("cut") ? el("p", { class: "dim" }, `The first ${value("response").length} of ${value("cut")} characters: the page would be too large with all. The whole is in the run's folder, traits/${traitOf(g)}.`) : null,
    el("details", {}, el("summary", {}, "What the judge replied"), judgeReply("trait", value("judge_trait")), judgeReply("coherence", value("judge_coherence"))),
    el("details", {}, el("summary", {}, "Token by token"), el("p", {}, "Save it with the button JSON; the model reads it again", value("direction") === "vector" || value("direction") === "random" ? ", without the push" : "", ":"),
      copyBlock(`orchestrate screen ${PAGE.name} answer.jsonl --output tokens.json\norchestrate view tokens.json`)),
    siblingsView(g, go));
}

// As a transcript, one line: screen and whatever else reads chats take it.
function transcriptOf(g) {
  const turns = [["system", valueOf(g, "system")], ["user", valueOf(g, "question")], ["assistant", valueOf(g, "response")]];
  const about = Object.fromEntries(CSV_COLUMNS.filter((name) => !["question", "response", "instruction"].includes(name)).map((name) => [name, valueOf(g, name)]));
  return JSON.stringify({ messages: turns.filter(([, content]) => content).map(([role, content]) => ({ role, content })), trait: traitOf(g), ...about }) + "\n";
}

function siblingsView(g, go) {
  const found = siblingsOf(g);
  if (found.length < 2) return null;
  const rows = found.slice(0, SIBLINGS_SHOWN).map((one) => [
    el("span", { class: one === g ? "here" : "" }, one === g ? "▸ " : "", pushWords(one)), num(pathOf(one, "trait_score"), 0), num(pathOf(one, "coherence_score"), 0),
    one === g ? el("span", { class: "dim" }, "this answer") : el("button", { type: "button", class: "link excerpt", onclick: () => go(one) }, valueOf(one, "response").slice(0, 160).replace(/\s+/g, " ") || "(empty)")]);
  const title = valueOf(g, "part") === "extraction" ? "Other answers to this question" : "The same question, strength by strength";
  return el("section", { class: "siblings" }, el("h4", {}, title), table(["asked with", "trait", "coherence", "answer"], rows, { class: "compared" }),
    found.length > SIBLINGS_SHOWN ? el("p", { class: "dim" }, `${found.length - SIBLINGS_SHOWN} more: use "all answers to this question".`) : null);
}

function judgeReply(metric, found) {
  if (!found) return el("p", { class: "dim" }, `${metric}: no reply is stored`);
  return el("div", {}, el("strong", {}, metric), found.unscored ? ` unscored, ${found.unscored}` : "",
    found.replies.map((reply) => el("div", {}, "“" + reply.text + (reply.cut ? `… (${reply.cut} characters)` : "") + "” ", el("span", { class: "dim" }, reply.tokens.map(([token, p]) => `${token.trim() || "␣"} ${p.toFixed(3)}`).join(", ")))));
}
