// A run: the verdict strip, one trait at a time, traits against one another, cost and provenance.

const VIEWS = { verdicts: "Verdicts", trait: "One trait", answers: "Answers", between: "Between traits", run: "The run" };
let address = null;

function runPage(host) {
  const state = { view: "verdicts", trait: PAGE.traits[0].metrics.trait, ...NO_FILTER };
  const changed = () => address.changed();
  const answers = answersView(state, changed), holder = el("div", {});
  const picker = el("select", { onchange: (event) => go({ trait: event.target.value }) }, PAGE.traits.map(({ metrics: m }) => el("option", { value: m.trait }, `${m.trait} (${verdictWords(m)})`)));
  const strip = verdictStrip((k) => go({ view: "trait", trait: PAGE.traits[k].metrics.trait }));
  const panels = {
    verdicts: [cardsView(), notFinished(), section("All figures", "At the chosen layer. Cohen's d is of the best method, on questions it was not made from; AUROCs on what was left out and angle are of the mean difference, that on evaluation questions of the best method. Steering: what the best push adds to the trait score of answers without an instruction, and at which strength. Brackets are 95 % intervals.", strip)],
    trait: [el("div", { class: "picker" }, el("label", {}, "Trait ", picker)), holder],
    answers: [answers.host], between: [traitsView(), firingView()], run: [runView()],
  };
  const { bar, show } = tabs(panels, (view) => go({ view }));
  let drawn = null;

  function draw() {
    show(state.view);
    const k = PAGE.traits.findIndex((one) => one.metrics.trait === state.trait);
    picker.value = state.trait;
    strip.querySelectorAll("tbody tr").forEach((row, i) => row.setAttribute("aria-selected", String(i === k)));
    if (drawn !== state.trait) holder.replaceChildren(traitView(k));
    drawn = state.trait;
  }

  function go(values) {
    Object.assign(state, values);
    draw();
    changed();
  }

  // An address of before names a trait and nothing else.
  function land(values) {
    const known = (name) => PAGE.traits.some((one) => one.metrics.trait === name), [first] = Object.keys(values);
    if (known(first) && values[first] === "") values = { view: "trait", trait: first };
    for (const name of ["find", "question", "of", "part", "polarity", "status", "push", "order", "down"]) state[name] = values[name] ?? "";
    if (VIEWS[values.view]) state.view = values.view;
    if (known(values.trait)) state.trait = values.trait;
    draw();
    ready.then(() => answers.land(values.answer), () => {});
  }

  const theme = el("button", { type: "button" });
  address = addressOf({ values: () => ({ view: state.view, trait: state.view === "trait" ? state.trait : "", answer: answers.key(), ...Object.fromEntries(Object.keys(NO_FILTER).map((name) => [name, state[name]])) }), land });
  const ready = unpackAnswers();
  host.append(runHeader(theme), bar, ...Object.keys(VIEWS).map((view) => panels[view].panel));
  startTheme(theme);
  draw();
  address.read();
  if (location.hash.length < 2) ready.then(() => answers.land(""), () => {});
  ready.then(() => { document.body.dataset.ready = "1"; }, (error) => panels.answers.panel.prepend(el("p", {}, `The answers cannot be shown: ${error.message}. They are in the run's folder, traits/*/responses.parquet.`)));
}

// Panels of which one is shown, chosen by pointer or arrow keys.
function tabs(panels, choose) {
  const names = Object.keys(panels), buttons = {};
  for (const name of names) {
    buttons[name] = el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => choose(name) }, VIEWS[name]);
    panels[name].panel = el("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: "" }, panels[name]);
  }
  const bar = el("div", { class: "tabs", role: "tablist", "aria-label": "views", onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], at = names.findIndex((name) => buttons[name] === document.activeElement);
    if (!step || at < 0) return;
    const to = names[(at + step + names.length) % names.length];
    choose(to);
    buttons[to].focus();
  } }, Object.values(buttons));
  const show = (view) => names.forEach((name) => {
    panels[name].panel.hidden = name !== view;
    buttons[name].setAttribute("aria-selected", String(name === view));
    buttons[name].tabIndex = name === view ? 0 : -1;
  });
  return { bar, show };
}

// A link to another view of this page: its address works in another window too.
function linkTo(text, values) {
  return el("a", { href: `#${new URLSearchParams(values)}` }, text);
}

function runHeader(theme) {
  const kinds = ["usable", "usable with a doubt", "weak", "do not use"].flatMap((verdict) => [false, true].map((later) => ({ verdict, is_to_be_checked: later })));
  const counts = kinds.map((kind) => [kind, PAGE.traits.filter((t) => verdictWords(t.metrics) === verdictWords(kind)).length]).filter(([, n]) => n);
  const when = [PAGE.times.planned && `planned ${utc(PAGE.times.planned)}`, PAGE.times.ended && `last result ${utc(PAGE.times.ended)}`, PAGE.times.seconds !== null && `${lasted(PAGE.times.seconds)} between them`].filter(Boolean);
  const { judge_usd: usd } = PAGE.cost;
  return el("header", {}, el("div", { class: "top" }, el("h1", {}, PAGE.name), theme),
    el("p", { class: "dim" }, `${PAGE.spec.model.model_id}, judged by ${PAGE.spec.judge.model}. `, when.length ? `${when.join(", ")}. `.replace(/^./, (one) => one.toUpperCase()) : "", `Page written ${utc(PAGE.times.written)}, orchestrate ${PAGE.provenance.orchestrate ?? "of an unknown version"}. `,
      num("cost/responses", 0), " responses, ", num("cost/generated_tokens", 0), ` tokens on ${PAGE.cost.devices.join(", ")}; `, usd === null ? "no price of the judge is known." : el("span", {}, "$", num("cost/judge_usd", 4), " paid to the judge.")),
    el("details", {}, el("summary", {}, "The command that repeats it"), copyBlock(PAGE.repeat)),
    el("div", { class: "summary" }, counts.map(([kind, n]) => el("span", {}, `${n} `, verdictBadge(kind)))));
}

const utc = (text) => `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;

function lasted(seconds) {
  const [h, m] = [Math.floor(seconds / 3600), Math.round((seconds % 3600) / 60)];
  return h ? `${h} h ${m} min` : seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
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
  const head = [el("button", { type: "button", class: "link", onclick: (event) => { event.stopPropagation(); onChoose(); } }, m.trait), verdictBadge(m), useCell(m, "reads"), useCell(m, "steers"), withInterval(`${path}/contrast`, `${path}/contrast_interval`, 1)];
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
    el("h3", {}, "Cost"), costView("cost", PAGE.cost), el("h3", {}, "Provenance"), madeView(), el("details", {}, el("summary", {}, "Every setting and version"), provenanceView(PAGE)));
}

function costView(path, cost) {
  const line = (name, key) => [el("dt", {}, name), el("dd", {}, num(`${path}/${key}`, 0))];
  return el("dl", { class: "kv" }, line("responses", "responses"), line("generated tokens", "generated_tokens"), line("verdicts", "verdicts"),
    line("judge tokens read", "judge_prompt_tokens"), line("judge tokens written", "judge_completion_tokens"),
    el("dt", {}, "paid to the judge"), el("dd", {}, cost.judge_usd === null ? "no price is known" : el("span", {}, "$", num(`${path}/judge_usd`, 4))),
    el("dt", {}, "devices"), el("dd", {}, cost.devices.join(", ")));
}

// Where the vectors are from, in sentences.
function madeView() {
  const { spec } = PAGE, m = PAGE.traits[0].metrics, g = m.generation, sampling = spec.sampling;
  const model = `${spec.model.model_id}${g.revision ? `, revision ${g.revision}` : ""}${g.n_layers ? `, ${g.n_layers} layers of ${g.d_model}` : ""}${g.dtype ? `, in ${g.dtype}` : ""}`;
  const adapted = g.base ? ` It is an adapter of ${g.base.model}.` : "";
  const judge = `${spec.judge.model}${m.judging && m.judging.mode ? ` (asked in mode ${m.judging.mode})` : ""}`;
  return el("div", {}, el("p", {}, `${model}, wrote every response: ${spec.rollouts} to each question under each instruction, at temperature ${sampling.temperature}, of at most ${sampling.max_new_tokens} tokens, seed ${spec.seed}.${adapted}`),
    el("p", {}, `${judge}, gave each response a trait score and a coherence score from 0 to 100. Positives count from a trait score of ${m.filter.threshold}, negatives under ${100 - m.filter.threshold}, both from a coherence of ${m.filter.coherence}.`),
    el("p", {}, `Vectors are made by ${spec.methods.join(", ")} from activations of the residual stream at the generated tokens. Layer 0 is the embedding's output, layer l that of block l-1.`),
    el("p", {}, `Made with orchestrate ${PAGE.provenance.orchestrate ?? "?"}, Python ${PAGE.provenance.python ?? "?"}; the run is ${PAGE.run_id}, its settings have the SHA-256 ${PAGE.spec_sha256}.`));
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
