// A run: the verdict strip, one trait at a time, traits against one another, cost and provenance.

function runPage(host) {
  const holder = el("div", {}), first = PAGE.traits.findIndex((t) => t.metrics.trait === decodeURIComponent(location.hash.slice(1)));
  const picker = el("select", { "aria-label": "trait", onchange: (event) => choose(Number(event.target.value)) },
    PAGE.traits.map((t, k) => el("option", { value: k }, `${t.metrics.trait} (${t.metrics.verdict})`)));
  const strip = verdictStrip((k) => { choose(k); picker.scrollIntoView({ block: "start" }); });
  const choose = (k) => {
    picker.value = String(k);
    strip.querySelectorAll("tbody tr").forEach((row, i) => row.setAttribute("aria-selected", String(i === k)));
    holder.replaceChildren(traitView(k));
    history.replaceState(null, "", "#" + encodeURIComponent(PAGE.traits[k].metrics.trait));
  };
  host.append(runHeader(), section("Verdicts", "At the chosen layer. Cohen's d is of the best method, on questions it was not made from; AUROCs on what was left out and angle are of the mean difference, that on evaluation questions of the best method. Steering: what the best push adds to the trait score of answers without an instruction, and at which strength. Brackets are 95 % intervals.", strip, notFinished()),
    el("div", { class: "picker" }, el("label", {}, "Trait "), picker), holder, traitsView(), firingView(), runView());
  choose(Math.max(0, first));
}

function runHeader() {
  const counts = ["usable", "usable with a doubt", "weak", "do not use"].map((v) => [v, PAGE.traits.filter((t) => t.metrics.verdict === v).length]).filter(([, n]) => n);
  return el("header", {}, el("h1", {}, PAGE.name), el("p", { class: "dim" }, `${PAGE.spec.model.model_id}, judged by ${PAGE.spec.judge.model}`),
    el("div", { class: "summary" }, counts.map(([v, n]) => el("span", {}, `${n} `, verdictBadge(v)))));
}

function notFinished() {
  return PAGE.unfinished.length ? el("p", {}, "Not finished yet: " + PAGE.unfinished.join(", ")) : null;
}

function verdictStrip(onChoose) {
  const headings = ["trait", "verdict", "reads", "steers", "contrast", "best", "Cohen's d", "AUROC, questions left\u00a0out", "AUROC, instructions left\u00a0out", "evaluation questions", "angle under", "kept +\u00a0/\u00a0−", "steering adds"];
  const strip = table(headings, PAGE.traits.map((t, k) => stripRow(t.metrics, `traits/${k}/metrics`, () => onChoose(k))), { class: "strip" });
  strip.querySelectorAll("tbody tr").forEach((row, k) => row.addEventListener("click", () => onChoose(k)));
  return strip;
}

function stripRow(m, path, onChoose) {
  const unscored = Object.values(m.n_unscored).reduce((a, b) => a + b, 0);
  const kept = el("span", {}, el("span", { class: "together" }, num(`${path}/n_kept/positive`, 0), " / ", num(`${path}/n_kept/negative`, 0)), " ",
    el("span", { class: "interval" }, "of ", num(`${path}/n_generated`, 0), unscored ? `, ${unscored} unscored` : ""));
  const head = [el("button", { type: "button", class: "link", onclick: (event) => { event.stopPropagation(); onChoose(); } }, m.trait), verdictBadge(m.verdict), useCell(m, "reads"), useCell(m, "steers"), withInterval(`${path}/contrast`, `${path}/contrast_interval`, 1)];
  const tail = [kept, steeringCell(m, `${path}/quality/causal`)];
  if (!m.quality) return [...head, ...Array(6).fill("–"), ...tail];
  const q = `${path}/quality`, best = m.quality.best, d = `${q}/mean_difference`, layer = best.layer;
  const rows = m.quality.methods[best.method].held_out_half ? "held_out_half" : "fitted", s = `${q}/methods/${best.method}/${rows}/cohens_d`;
  const est = (from, digits) => withInterval(`${from}/value/${layer}`, `${from}/interval/${layer}`, digits);
  const own = m.quality.evaluation && m.quality.evaluation.methods[best.method], part = own && ["readable", "separation"].find((one) => own[one]);
  return [...head, el("span", {}, best.method, " ", el("span", { class: "together" }, "@ ", num(`${q}/best/layer`, 0))), est(s, 2), est(`${d}/leave_one_question_out_auroc`, 3), est(`${d}/leave_one_instruction_out_auroc`, 3),
    part ? est(`${q}/evaluation/methods/${best.method}/${part}/auroc`, 3) : "–",
    el("span", {}, num(`${d}/angle_upper_degrees/${layer}`, 1), "°"), ...tail];
}

// Whether a use is shown, and at which layer; records of before have none.
function useCell(m, name) {
  const use = (m.uses || {})[name];
  if (!use || use.state === "untested") return el("span", { class: "dim" }, "untested");
  return el("span", { class: "together" }, `${use.state} @ ${use.layer}`);
}

function steeringCell(m, path) {
  if (!m.quality || !m.quality.causal) return el("span", { class: "dim" }, "not run");
  if (m.quality.causal.vector.rise_at === null) return "unreadable";
  return el("span", {}, el("span", { class: "together" }, num(`${path}/vector/rise/value`, 0), " at ", num(`${path}/vector/rise_at`, 2)), " ", interval(`${path}/vector/rise/interval`, 0));
}

function traitsView() {
  const between = PAGE.cosine_between_traits;
  if (!between) return section("Traits against one another", "", emptyView("Cosines between traits", "Needs vectors of two traits or more.", "Extract several traits in one run: orchestrate extract --traits all"));
  const n = between.by_layer.length, holder = el("div", {});
  const layers = PAGE.traits.filter((t) => t.metrics.quality).map((t) => t.metrics.quality.best.by_method[between.method]).sort((a, b) => a - b);
  const draw = (layer) => holder.replaceChildren(cosineMatrix(between.traits, `cosine_between_traits/by_layer/${layer}`, between.by_layer[layer]),
    between.interval ? el("details", {}, el("summary", {}, "What the directions' errors allow"), cosineRanges(between, layer)) : "");
  const start = layers[Math.floor(layers.length / 2)];
  const select = el("select", { "aria-label": "layer", onchange: (event) => draw(Number(event.target.value)) },
    [...Array(n).keys()].map((k) => el("option", { value: k, ...(k === start ? { selected: "" } : {}) }, layerName(k, n - 1))));
  draw(start);
  return section("Traits against one another", `Cosine between the ${between.method} vectors; the layer first shown is the median of the traits' best.`, el("p", {}, el("label", {}, "layer "), select), holder);
}

function firingView() {
  const found = PAGE.vectors_that_fire;
  if (!found) return "";
  const columns = [...found.traits.map((name, k) => `${name} @ ${found.layers[k]}`), "any of them"];
  const rows = [...found.traits.map((name, k) => `${name} (${found.n[k]})`), `no instruction (${found.n_neutral})`];
  return section("Which vector fires on which trait's answers", "Share of each trait's kept positive answers to held-out questions (rows) over each vector's threshold (columns): what 5 % of answers without an instruction exceed. The last row are such answers, held out.",
    matrixTable(rows, columns, (i, j) => i < found.n.length ? `vectors_that_fire/share/${i}/${j}` : `vectors_that_fire/neutral/${j}`, [...found.share, found.neutral]));
}

function cosineRanges(between, layer) {
  const rows = [];
  between.traits.forEach((a, i) => between.traits.forEach((b, j) => {
    if (i < j) rows.push([`${a}, ${b}`, withInterval(`cosine_between_traits/by_layer/${layer}/${i}/${j}`, `cosine_between_traits/interval/${layer}/${i}/${j}`, 3)]);
  }));
  return table(["pair", "cosine [range]"], rows);
}

function runView() {
  const best = PAGE.traits.find((t) => t.load);
  return section("The run", "", el("h3", {}, "Repeat it"), copyBlock(PAGE.repeat), best ? el("h3", {}, "Use it") : null, best ? copyBlock(best.load) : null,
    el("h3", {}, "Cost"), costView("cost", PAGE.cost), el("h3", {}, "Provenance"), provenanceView(PAGE));
}

function costView(path, cost) {
  const line = (name, key) => [el("dt", {}, name), el("dd", {}, num(`${path}/${key}`, 0))];
  return el("dl", { class: "kv" }, line("responses", "responses"), line("generated tokens", "generated_tokens"), line("verdicts", "verdicts"),
    line("judge tokens read", "judge_prompt_tokens"), line("judge tokens written", "judge_completion_tokens"),
    el("dt", {}, "paid to the judge"), el("dd", {}, cost.judge_usd === null ? "no price is known" : el("span", {}, "$", num(`${path}/judge_usd`, 4))),
    el("dt", {}, "devices"), el("dd", {}, cost.devices.join(", ")));
}

function provenanceView(run) {
  const facts = flat({ run_id: run.run_id, spec_sha256: run.spec_sha256, ...run.spec, ...run.provenance });
  const generation = run.traits ? flat(run.traits[0].metrics.generation) : [];
  return el("dl", { class: "kv" }, [...facts, ...generation.filter(([name]) => !facts.some(([other]) => other === name))].map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function flat(body, prefix = "") {
  return Object.entries(body).flatMap(([name, value]) => value !== null && typeof value === "object" && !Array.isArray(value)
    ? flat(value, prefix + name + ".") : [[prefix + name, Array.isArray(value) ? value.join(", ") : String(value)]]);
}
