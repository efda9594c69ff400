// Everything about one trait.

function traitView(index) {
  const path = `traits/${index}`, trait = PAGE.traits[index], m = trait.metrics;
  return el("div", {},
    el("h2", {}, m.trait, " ", verdictBadge(m)),
    m.reasons.length ? el("div", {}, el("h3", {}, "Gates that failed"), el("ul", { class: "plain" }, m.reasons.map((text) => el("li", {}, text)))) : el("p", {}, passedWords(m)),
    m.notes.length ? el("div", {}, el("h3", {}, "Worth knowing"), el("ul", { class: "plain" }, m.notes.map((text) => el("li", {}, text)))) : null,
    m.stopping ? el("p", {}, "Generation ended with ", num(`${path}/metrics/n_generated`, 0), " of ", num(`${path}/metrics/stopping/n_planned`, 0), ` planned responses, ${m.stopping.summary}.`) : null,
    separatedView(trait, path),
    m.quality ? layersView(m.quality, `${path}/metrics/quality`, m.methods) : emptyView("No vectors", "One side kept no response, so there is nothing to measure.", "See the funnel for where they fell; `orchestrate refilter` tries other thresholds without a forward pass."),
    m.quality ? readingView(m.quality.reading, `${path}/metrics/quality/reading`) : null,
    m.quality ? confoundsView(m.quality, `${path}/metrics/quality`) : null,
    testsView(m, `${path}/metrics/quality`),
    readView(trait));
}

// A gate with nothing to look at fails nothing: the notes name the test that was not made.
function passedWords(m) {
  const isWhole = m.quality && m.quality.evaluation && m.quality.causal && !(m.untested || []).length;
  return isWhole ? "Every gate passed." : "Every gate that could be measured passed.";
}

function separatedView(trait, path) {
  const m = trait.metrics, t = m.filter.threshold;
  const traitLines = t === 50 ? [[50, "", "start"]] : [[t, "positives from", "start"], [100 - t, "negatives under", "end"]];
  const fell = [...Object.entries(m.n_dropped).map(([why]) => ["dropped", why, num(`${path}/metrics/n_dropped/${why}`, 0)]),
    ...Object.entries(m.n_unscored).map(([why]) => ["unscored", why, num(`${path}/metrics/n_unscored/${why}`, 0)])];
  return section("Did the data separate?", `Positives count from a trait score of ${t}, negatives under ${100 - t}, both from a coherence of ${m.filter.coherence}.`,
    el("div", { class: "charts" }, scoreHistogram(trait, "trait", traitLines), scoreHistogram(trait, "coherence", [[m.filter.coherence, "", "start"]]),
      funnelTable(trait, path),
      el("figure", {}, el("figcaption", {}, "What fell, and why"),
        fell.length ? table(["", "reason", "responses"], fell) : el("p", {}, "Nothing fell."),
        el("p", {}, "Contrast ", withInterval(`${path}/metrics/contrast`, `${path}/metrics/contrast_interval`, 1), ": mean trait score of all scored positives minus that of the negatives.", boundsText(`${path}/metrics/contrast_bounds`, 1)),
        spreadText(`${path}/metrics/contrast_spread`, "The contrast", 1, " points"))));
}

// What a figure could be if the scores that no judge gave were at 0 or at 100.
function boundsText(path, digits) {
  if (!at(path)) return null;
  return el("span", {}, " With the ", num(`${path}/n`, 0), " missing scores at 0 or at 100 it lies between ", num(`${path}/lowest/value`, digits), " and ", num(`${path}/highest/value`, digits), ".");
}

// What a difference between the sides varies with, and what narrows its interval most.
function spreadText(path, what, digits, unit) {
  const s = at(path);
  if (!s) return null;
  const one = (name) => s[name] === null ? "unknown" : el("span", {}, num(`${path}/${name}`, digits), unit);
  return el("p", { class: "explain" }, `${what} varies from one instruction pair to another with a standard deviation of `, one("instruction"), ", from one question to another of ", one("question"), ", with both beyond that of ", one("combination"),
    ", and one response of a prompt differs from another by ", one("rollout"), s.narrows_most ? `. More ${s.narrows_most} would narrow the interval most.` : ".");
}

function layersView(quality, path, fits) {
  return section("Where does it live?", `Layer ${layerName(quality.best.layer, quality.residual_norm.length - 1)} of ${quality.best.method} is chosen: ${quality.best.rule}. Bands are 95 % intervals that move whole questions. Hatched: embedding and last layer.`,
    layerCharts(quality), spreadText(`${path}/spread`, "The mean difference at this layer, its length taken as 1,", 2, ""),
    el("div", { class: "charts" }, methodMap(quality, path, fits),
      Object.keys(quality.methods).length > 1 ? el("figure", {}, el("figcaption", {}, `Cosine between methods at layer ${quality.best.layer}`),
        cosineMatrix(quality.cosine_between_methods.methods, `${path}/cosine_between_methods/by_layer/${quality.best.layer}`, quality.cosine_between_methods.by_layer[quality.best.layer])) : null),
    el("details", {}, el("summary", {}, "The numbers of the charts"), layerTable(quality, path)));
}

function layerTable(quality, path) {
  const d = `${path}/mean_difference`, best = quality.best.method, last = quality.residual_norm.length - 1;
  const rows = quality.methods[best].held_out_half ? "held_out_half" : "fitted", s = `${path}/methods/${best}/${rows}`;
  const est = (from, k, digits) => withInterval(`${from}/value/${k}`, `${from}/interval/${k}`, digits);
  return table(["layer", "AUROC, questions left out", "AUROC, instructions left out", "random", "shuffled", `Cohen's d (${best})`, "accuracy", "effective n +/-", "angle", "95 % bound", "halves' cosine", "norm", "share of residual"],
    quality.residual_norm.map((_, k) => [layerName(k, last), est(`${d}/leave_one_question_out_auroc`, k, 3), est(`${d}/leave_one_instruction_out_auroc`, k, 3),
      num(`${d}/random_vector_auroc/${k}`, 3), num(`${d}/shuffled_labels_auroc/${k}`, 3), est(`${s}/cohens_d`, k, 2), est(`${s}/accuracy`, k, 3),
      el("span", {}, num(`${s}/effective_n/positive/${k}`, 0), " / ", num(`${s}/effective_n/negative/${k}`, 0)),
      num(`${d}/angle_degrees/${k}`, 1), num(`${d}/angle_upper_degrees/${k}`, 1), est(`${d}/split_half_cosine`, k, 3),
      num(`${path}/methods/${best}/norm/${k}`, 2), num(`${path}/methods/${best}/norm_to_residual/${k}`, 3)]), { class: "layers" });
}

// Is it in the texts, or in the instructions before them?
function readingView(r, path) {
  const title = "Does it read, or does it see the instruction?";
  if (!r || !r.auroc) return section(title, "", emptyView("Texts without their instruction", "Kept answers are read again under the opposite instruction and under none.", "Not measured in this run: --contexts was 0, or too few responses are kept."));
  const n = r.auroc.value.length, curve = (key, kind, label) => ({ values: r[key].value, interval: r[key].interval, kind, label });
  const est = (key, k) => withInterval(`${path}/${key}/value/${k}`, `${path}/${key}/interval/${k}`, 3);
  return section(title, "", el("p", { class: "explain" }, num(`${path}/n_read`, 0), ` kept answers, read again under the opposite instruction of their pair and under none. What is told apart under none is in the text. Reading layer ${r.layer ?? "–"}, p `, num(`${path}/p`, 3), " for all layers together."),
    el("div", { class: "charts" },
      layerChart("Where is the vector? Shares", "share", [{ values: r.text_share, kind: "first", label: "in the texts" }, { values: r.context_share, kind: "second", label: "in the instructions" }], { chosen: r.layer }),
      layerChart("AUROC in and out of context", "AUROC", [curve("auroc", "first", "under no instruction"), { values: r.in_context_auroc.value, kind: "random", label: "in the texts' own contexts" }, curve("instruction_auroc", "second", "same texts, instructions exchanged")], { chosen: r.layer, y: [0, 1.02] })),
    el("details", {}, el("summary", {}, "The numbers of the charts"), table(["layer", "text share", "context share", "AUROC, no instruction", "Cohen's d", "AUROC in context", "AUROC of the instruction"],
      [...Array(n).keys()].map((k) => [layerName(k, n - 1), num(`${path}/text_share/${k}`, 3), num(`${path}/context_share/${k}`, 3), est("auroc", k), est("cohens_d", k), est("in_context_auroc", k), est("instruction_auroc", k)]))));
}

const CONFOUNDS = { response_length: "length of the response", instruction_words: "words shared with the instruction", refusal_words: "begins with words of refusal", prompt_difference: "difference between the prompts" };

function confoundsView(quality, path) {
  const { method, layer } = quality.best;
  const rows = Object.keys(quality.confounds).map((name) => {
    const c = `${path}/confounds/${name}`, one = quality.confounds[name];
    return [CONFOUNDS[name] || name, one.auroc ? withInterval(`${c}/auroc/value`, `${c}/auroc/interval`, 3) : "–",
      one.correlation ? num(`${c}/correlation/${layer}`, 2) : "–",
      one.matched_auroc ? withInterval(`${c}/matched_auroc/value/${layer}`, `${c}/matched_auroc/interval/${layer}`, 3) : "–",
      typeof one.n_matched === "number" ? num(`${c}/n_matched`, 0) : "–", num(`${c}/cosine/${layer}`, 2)];
  });
  const refusal = refusalCosine(path, layer);
  if (refusal) rows.push([`refusal vector of this run (both ${PAGE.cosine_between_traits.method})`, "–", "–", "–", "–", refusal]);
  return section("What else could it be?", `The ${method} vector at layer ${layer}. AUROC: how well the covariate alone tells the sides apart (0.5: not at all). Correlation: of the projection with it within the sides. Alike: the AUROC of the projection among pairs of a positive and a negative that are alike in it, and how many there are; with fewer than 10 the two cannot be told apart. Cosine: of the vector with the covariate's own direction.`,
    table(["covariate", "AUROC alone", "correlation", "AUROC alike", "pairs", "cosine"], rows));
}

function refusalCosine(path, layer) {
  const between = PAGE.cosine_between_traits, own = PAGE.traits[Number(path.split("/")[1])].metrics.trait;
  if (!between || own === "refusal") return null;
  const i = between.traits.indexOf(own), j = between.traits.indexOf("refusal");
  if (i < 0 || j < 0) return null;
  const from = "cosine_between_traits";
  return withInterval(`${from}/by_layer/${layer}/${i}/${j}`, `${from}/interval/${layer}/${i}/${j}`, 2);
}

function testsView(m, path) {
  const q = m.quality;
  if (!q) return null;
  const none = (title, what, flag) => emptyView(title, what, `Not measured in this run: the definition has no evaluation questions, ${flag} was 0, or the vectors were not worth it.`);
  return section("Does it hold and does it cause?", "", q.evaluation ? evaluationView(q, `${path}/evaluation`) : none("Held-out evaluation", "AUROC and Cohen's d on the trait's evaluation questions, generated with and without instructions.", "--evaluation"),
    q.likelihood ? likelihoodView(q.likelihood, `${path}/likelihood`) : emptyView("Does it make texts of the trait likelier?", "The causal test without a judge, at every layer.", "Not measured in this run: --contexts was 0, or too few responses were kept."),
    q.causal ? causalView(q.causal, `${path}/causal`) : none("Dose-response", "Trait and coherence against steering strength, beside random vectors of equal norm.", "--causal"));
}

function evaluationView(q, path) {
  const best = q.best, name = best.method, one = q.evaluation.methods[name], part = one.readable ? "readable" : "separation", s = one[part], own = `${path}/methods/${name}`;
  const about = el("p", { class: "explain" }, "On ", num(`${path}/n_questions`, 0), " evaluation questions, none of which any vector was made from: ", num(`${path}/n/positive`, 0), " responses that show the trait, ",
    num(`${path}/n/negative`, 0), " that do not, and ", num(`${path}/n/plain`, 0), " readable ones to no instruction at all. Correlation: of the projection with the judge's trait score.", ...(q.evaluation.left_out_instruction_auroc ? [` A mean difference made of the other instruction pairs tells the readable ones apart at layer ${best.layer} with AUROC `,
      withInterval(`${path}/left_out_instruction_auroc/value/${best.layer}`, `${path}/left_out_instruction_auroc/interval/${best.layer}`, 3), "."] : []), ...(one.with_unscored ? [` With those that no judge scored the AUROC of ${name} there is `, num(`${own}/with_unscored/auroc/value/${best.layer}`, 3), "."] : []));
  if (!s) return el("div", {}, about, emptyView("Too few to separate", "One side has fewer than four responses that can be read.", "See traits/" + PAGE.traits[Number(path.split("/")[1])].metrics.trait + "/evaluation.parquet."));
  const series = [["correlation_within", "first", "within instructions"], ["correlation", "shuffled", "pooled over instructions"], ["correlation_plain", "second", "without an instruction"]].filter(([key]) => one[key]).map(([key, kind, label]) => ({ values: one[key].value, interval: one[key].interval, kind, label }));
  const est = (from, k, digits) => at(from) ? withInterval(`${from}/value/${k}`, `${from}/interval/${k}`, digits) : "–";
  return el("div", {}, about, el("div", { class: "charts" },
    layerChart(`AUROC of ${name} on evaluation questions`, "AUROC", [{ values: s.auroc.value, interval: s.auroc.interval, kind: "first", label: "instructed responses" }], { chosen: best.layer, y: [0.3, 1.02] }),
    layerChart("Does the projection follow the score? Correlation", "correlation", series, { chosen: best.layer, y: [-0.5, 1.02] })),
    el("details", {}, el("summary", {}, "The numbers of the charts"), table(["layer", "AUROC", "Cohen's d", "correlation within instructions", "pooled", "no instruction"], q.residual_norm.map((_, k) => [layerName(k, q.residual_norm.length - 1),
      est(`${own}/${part}/auroc`, k, 3), est(`${own}/${part}/cohens_d`, k, 2), est(`${own}/correlation_within`, k, 2), est(`${own}/correlation`, k, 2), est(`${own}/correlation_plain`, k, 2)]))));
}

function likelihoodView(l, path) {
  const about = el("p", { class: "explain" }, "What does adding the vector do to the mean log p per token of ", num(`${path}/n_texts/positive`, 0), " kept positive responses less that of ", num(`${path}/n_texts/negative`, 0),
    ` negative ones, read without an instruction? No judge is asked. z: its gain at the layer among ${l.n_random} random directions with the covariance of the responses. At layer ${l.layer}, p `, num(`${path}/p`, 3), " for all layers together.");
  const n = l.z.length;
  return el("div", {}, about, el("div", { class: "charts" },
    layerChart("Do texts of the trait become likelier?", "z", [{ values: l.z, kind: "first", label: "z among random directions" }], { chosen: l.layer }),
    layerChart("Gain per push of the vector's length", "nats per token", [{ values: l.gain.value, interval: l.gain.interval, kind: "first", label: "as far as a small push tells" }], { chosen: l.layer })),
    el("details", {}, el("summary", {}, "Pushes that were tried, their damage, and the numbers of the charts"),
      el("p", {}, "Strength: in mean norms of the residual stream. Damage: KL(without || with the push) of next tokens in answers to no instruction, nats per token."),
      table(["layer", "strength", "gain", "random directions' gain", "damage", "random directions' damage"], l.pushes.map((one, k) => [String(one.layer), num(`${path}/pushes/${k}/strength`, 2), num(`${path}/pushes/${k}/gain`, 3),
        one.random_gain.length ? el("span", {}, one.random_gain.map((_, j) => [j ? ", " : "", num(`${path}/pushes/${k}/random_gain/${j}`, 3)]).flat()) : "–", num(`${path}/pushes/${k}/damage`, 4), num(`${path}/pushes/${k}/random_damage`, 4)])),
      table(["layer", "z", "gain"], l.z.map((_, k) => [layerName(k, n - 1), num(`${path}/z/${k}`, 2), withInterval(`${path}/gain/value/${k}`, `${path}/gain/interval/${k}`, 3)]))));
}

function causalView(c, path) {
  const curves = (score) => [["vector", "first", `${c.method} vector`], ["random", "random", "random vectors of equal norm"]].map(([key, kind, label]) => ({ strength: c[key].strength, value: c[key][score].value, interval: c[key][score].interval, kind, label }));
  const est = (from, digits) => withInterval(`${from}/value`, `${from}/interval`, digits);
  const facts = el("dl", { class: "kv" }, el("dt", {}, "trait's rise"), el("dd", {}, est(`${path}/vector/rise`, 1), " at strength ", num(`${path}/vector/rise_at`, 2), boundsText(`${path}/rise_bounds`, 1)),
    el("dt", {}, "over random vectors"), el("dd", {}, est(`${path}/rise_over_random`, 1)), el("dt", {}, "questions steered backwards"), el("dd", {}, est(`${path}/backwards`, 2)),
    el("dt", {}, "slope per strength"), el("dd", {}, est(`${path}/vector/slope`, 1)), el("dt", {}, "strongest with coherence 75"), el("dd", {}, num(`${path}/strongest_coherent`, 2)),
    el("dt", {}, "responses"), el("dd", {}, num(`${path}/n_searched`, 0), " to search, ", num(`${path}/n_confirmed`, 0), " fresh ones to confirm"));
  const rows = [["no push", 0, "vector"], ...c.vector.strength.slice(1).map((_, k) => ["vector", k + 1, "vector"]), ...c.random.strength.slice(1).map((_, k) => ["random", k + 1, "random"])];
  return el("div", {}, el("p", { class: "explain" }, `Answers without an instruction while ${c.method} is added at layer ${c.layer}. Strength 1 is the distance between the means of positives and negatives there. The search took the push with the largest trait x coherence; the line marks it. Bands are 95 % intervals over questions.`),
    el("div", { class: "charts" }, doseChart("Trait score", curves("trait"), { best: c.best_strength, lines: [] }), doseChart("Coherence", curves("coherence"), { best: c.best_strength, lines: [[c.coherence_floor, "readable"]] }), el("figure", {}, el("figcaption", {}, "In numbers"), facts)),
    el("details", {}, el("summary", {}, "The numbers of the charts"), table(["push", "strength", "responses", "trait", "coherence"], rows.map(([name, k, key]) => [name, num(`${path}/${key}/strength/${k}`, 2), num(`${path}/${key}/n/${k}`, 0),
      withInterval(`${path}/${key}/trait/value/${k}`, `${path}/${key}/trait/interval/${k}`, 1), withInterval(`${path}/${key}/coherence/value/${k}`, `${path}/${key}/coherence/interval/${k}`, 1)])),
      el("p", {}, "The search: mean of trait x coherence / 100."), table(["layer", "strength", "responses", "worth"], c.search.map((one, k) => [String(one.layer), num(`${path}/search/${k}/strength`, 2), num(`${path}/search/${k}/n`, 0), num(`${path}/search/${k}/worth`, 1)]))));
}

// Where to begin reading: answers that a figure above is made of, each list one click away.
function readView(trait) {
  const of = trait.metrics.trait, list = (text, values) => el("li", {}, linkTo(text, { view: "answers", of, ...values }));
  return section("Read the data", "Every answer of this trait, with its scores, the judge's reply and its projection.",
    el("ul", { class: "plain" }, list("all of them", {}), list("positives that show the trait least", { part: "extraction", polarity: "positive", order: "trait_score" }),
      list("negatives that show it most", { part: "extraction", polarity: "negative", order: "trait_score", down: "1" }), list("what fell", { status: "dropped" }), list("what the judge did not score", { status: "unscored" }),
      list("held-out answers to no instruction, by projection", { part: "evaluation", polarity: "plain", order: "projection", down: "1" }),
      list("steered answers, the least coherent first", { part: "steering", push: "vector", order: "coherence_score" }), list("steered answers that show the trait most", { part: "steering", push: "vector", order: "trait_score", down: "1" })));
}
