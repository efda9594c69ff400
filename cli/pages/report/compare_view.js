// Two runs side by side.

function comparePage(host) {
  const [a, b] = PAGE.names, theme = el("button", { type: "button" });
  startTheme(theme);
  host.append(el("header", {}, el("div", { class: "top" }, el("h1", {}, `${a} and ${b}`), theme)),
    section("What differs in their settings", "", PAGE.differences.length ? el("ul", { class: "plain" }, PAGE.differences.map((text) => el("li", {}, text))) : el("p", {}, "Nothing.")),
    section("Verdicts", "Brackets are 95 % intervals; the cosine is between the two runs' vectors at the first run's best layer: of its best method where both have that. The mean difference's comes with the range that the directions' errors allow.", compareTable(a, b)),
    section("By layer", "", PAGE.traits.map((one, k) => compareCharts(one, k, a, b))),
    section("How to repeat them", "", PAGE.runs.map((run, k) => el("div", {}, el("h3", {}, PAGE.names[k]), copyBlock(run.repeat), costView(`runs/${k}/cost`, run.cost)))));
}

function compareTable(a, b) {
  const rows = PAGE.traits.map((one, k) => {
    const of = (i) => `traits/${k}/metrics/${i}`, cell = (i) => el("span", {}, verdictBadge(one.metrics[i]), el("div", { class: "dim" }, one.metrics[i].reasons.join("; ")));
    const kept = (i) => el("span", { class: "together" }, num(`${of(i)}/n_kept/positive`, 0), " / ", num(`${of(i)}/n_kept/negative`, 0));
    const layer = one.metrics[0].quality ? one.metrics[0].quality.best.layer : null;
    return [one.trait, cell(0), cell(1), withInterval(`${of(0)}/contrast`, `${of(0)}/contrast_interval`, 1), withInterval(`${of(1)}/contrast`, `${of(1)}/contrast_interval`, 1), tested(one, k, 0), tested(one, k, 1), kept(0), kept(1),
      one.cosine ? el("span", {}, withInterval(`traits/${k}/cosine/value/${layer}`, `traits/${k}/cosine/interval/${layer}`, 3), el("div", { class: "dim" }, one.cosine.method)) : "not comparable"];
  });
  return table(["trait", a, b, `contrast, ${a}`, `contrast, ${b}`, `tested, ${a}`, `tested, ${b}`, `kept + / −, ${a}`, `kept + / −, ${b}`, "cosine"], rows, { class: "strip" });
}

// Held-out AUROC and what steering adds, of one trait in one run.
function tested(one, k, i) {
  const q = one.metrics[i].quality, path = `traits/${k}/metrics/${i}/quality`;
  const own = q && q.evaluation && q.evaluation.methods[q.best.method], part = own && ["readable", "separation"].find((one) => own[one]);
  const auroc = part ? el("div", {}, "AUROC ", num(`${path}/evaluation/methods/${q.best.method}/${part}/auroc/value/${q.best.layer}`, 3)) : null;
  const steers = q && q.causal ? el("div", { class: "together" }, "steering adds ", num(`${path}/causal/vector/rise/value`, 0)) : null;
  return auroc || steers ? el("span", {}, auroc, steers) : "–";
}

function compareCharts(one, k, a, b) {
  const [p, q] = one.metrics.map((m) => m.quality);
  if (!p || !q) return el("div", {}, el("h3", {}, one.trait), emptyView("No vectors in one of the runs", "One side kept no response.", "See that run's own report for where they fell."));
  const series = (key) => [p, q].map((quality, i) => ({ values: quality.mean_difference[key].value, interval: quality.mean_difference[key].interval, kind: i ? "second" : "first", label: PAGE.names[i] }));
  const charts = [layerChart("AUROC, questions left out", "AUROC", series("leave_one_question_out_auroc"), { chosen: p.best.layer, y: [0.3, 1.02] })];
  if (one.cosine) charts.push(layerChart("Cosine between the two runs' vectors", "cosine", [{ values: one.cosine.value, interval: one.cosine.interval, kind: "first", label: one.cosine.method + (one.cosine.interval ? "; band: what the directions' errors allow" : "") }],
    { chosen: p.best.layer, y: [Math.floor(10 * Math.min(0.9, ...one.cosine.value, ...(one.cosine.interval || []).map((p) => p[0]))) / 10, 1.005] }));
  const numbers = one.cosine ? el("details", {}, el("summary", {}, "The numbers"), table(["layer", `AUROC, ${a}`, `AUROC, ${b}`, "cosine [range]"], one.cosine.value.map((_, layer) => [layerName(layer, one.cosine.value.length - 1),
    ...[0, 1].map((i) => { const from = `traits/${k}/metrics/${i}/quality/mean_difference/leave_one_question_out_auroc`; return withInterval(`${from}/value/${layer}`, `${from}/interval/${layer}`, 3); }),
    withInterval(`traits/${k}/cosine/value/${layer}`, `traits/${k}/cosine/interval/${layer}`, 3)]))) : null;
  return el("div", {}, el("h3", {}, one.trait, one.cosine && !one.cosine.same_model ? " (two different models: cosines mean little)" : ""), el("div", { class: "charts" }, charts), numbers);
}
