// A trait's verdict in one card: reads, steers, how sure, what it costs, what to do next.

const USE_WORDS = { yes: "yes", doubt: "with a doubt", no: "no", untested: "not tested" };
const USE_MARKS = { yes: "✓", doubt: "?", no: "✕", untested: "·" };

function cardsView() {
  return el("div", { class: "cards" }, PAGE.traits.map((trait, k) => verdictCard(trait, `traits/${k}/metrics`, k)));
}

function verdictCard(trait, path, k) {
  const m = trait.metrics, q = m.quality, from = `${path}/quality`;
  const fact = (name, ...said) => [el("dt", {}, name), el("dd", {}, said)];
  return el("article", { class: "card", "aria-label": m.trait },
    el("h3", {}, m.trait, " ", verdictBadge(m)),
    el("dl", { class: "kv" }, fact("reads", useWords(m, "reads"), readsFigure(m, from)), fact("steers", useWords(m, "steers"), steersFigure(q, from)),
      fact("how sure", q ? ["direction within ", num(`${from}/mean_difference/angle_upper_degrees/${q.best.layer}`, 0), "° of the true one (likely ", num(`${from}/mean_difference/angle_degrees/${q.best.layer}`, 0), "°)"] : "no vectors"),
      fact("what it costs", damageFigure(q, from)),
      fact("next", (trait.next || []).length ? el("ul", { class: "plain" }, trait.next.map((text) => el("li", {}, spoken(text)))) : "nothing more")),
    el("p", { class: "links" }, linkTo("charts and figures", { view: "trait", trait: m.trait }), linkTo("its answers", { view: "answers", of: m.trait })));
}

function useWords(m, name) {
  const use = (m.uses || {})[name] || { state: "untested" };
  return el("span", { class: `use ${use.state}` }, el("span", { "aria-hidden": "true" }, USE_MARKS[use.state] || "·"), ` ${USE_WORDS[use.state] || use.state}`,
    use.layer === null || use.layer === undefined || use.state === "untested" ? "" : `, layer ${use.layer}`,
    // its own test may have been passed: what speaks against the vector speaks against both uses
    use.state === "no" && m.verdict === "do not use" ? ", by the verdict" : "");
}

function readsFigure(m, from) {
  const r = m.quality && m.quality.reading;
  if (!r || !r.auroc || r.layer === null) return "";
  return el("div", { class: "dim" }, "AUROC without an instruction ", withInterval(`${from}/reading/auroc/value/${r.layer}`, `${from}/reading/auroc/interval/${r.layer}`, 2), ", p ", num(`${from}/reading/p`, 3));
}

function steersFigure(q, from) {
  if (q && q.causal && q.causal.vector.rise_at !== null) {
    return el("div", { class: "dim" }, "adds ", withInterval(`${from}/causal/vector/rise/value`, `${from}/causal/vector/rise/interval`, 0), " of 100 at strength ", num(`${from}/causal/vector/rise_at`, 2), "; ",
      withInterval(`${from}/causal/rise_over_random/value`, `${from}/causal/rise_over_random/interval`, 0), " over random vectors");
  }
  if (q && q.causal) return el("div", { class: "dim" }, "every push leaves unreadable answers");
  return q && q.likelihood ? el("div", { class: "dim" }, "texts likelier with p ", num(`${from}/likelihood/p`, 3), "; not judged") : "";
}

// Coherence with the push that the rise is taken at beside none, and how far next tokens move.
function damageFigure(q, from) {
  const said = [], c = q && q.causal;
  const at = c && c.vector.rise_at !== null ? c.vector.strength.indexOf(c.vector.rise_at) : -1;
  if (at > 0) said.push(el("div", {}, "coherence ", num(`${from}/causal/vector/coherence/value/0`, 0), " without a push, ", num(`${from}/causal/vector/coherence/value/${at}`, 0), " with it"));
  const pushes = (q && q.likelihood && q.likelihood.pushes) || [];
  const layer = (c || q?.likelihood || {}).layer, isHere = pushes.some((one) => one.layer === layer && typeof one.damage === "number");
  const strongest = pushes.reduce((best, one, k) => (typeof one.damage === "number" && (!isHere || one.layer === layer) && (best < 0 || one.damage > pushes[best].damage) ? k : best), -1);
  if (strongest >= 0) said.push(el("div", { class: at > 0 ? "dim" : "" }, num(`${from}/likelihood/pushes/${strongest}/damage`, 3), " nats a token of damage at layer ", String(pushes[strongest].layer), ", ", num(`${from}/likelihood/pushes/${strongest}/strength`, 2), " norms"));
  return said.length ? said : "not measured";
}

// Words with `code` between backquotes.
function spoken(text) {
  return text.split("`").map((part, k) => (k % 2 ? el("code", {}, part) : part));
}
