// Draws a run as it is made: asks the page's own server every two seconds, seldom once it is finished.

const EVERY_MS = 2000, SLOW_MS = 15_000;
const MARKS = { usable: "✓", "usable with a doubt": "✓", weak: "~", "do not use": "✗" };
let answersShown = "";

startTheme(byId("theme"));
ask();

async function ask() {
  let wait = EVERY_MS;
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    paint(found);
    // it may be judged again
    if (found.state === "finished") wait = SLOW_MS;
  } catch (error) {
    // what is shown stays: it was true when it was asked for
    byId("doing").textContent = error instanceof TypeError
      ? "the server has stopped: what stands here is the last that it said" : error.message;
  }
  setTimeout(ask, wait);
}

function paint(found) {
  document.title = `${found.state}: ${found.name}`;
  setText(byId("name"), `${found.name}, made with ${found.model}`);
  const doing = [found.state, found.why, found.left && `about ${found.left} left`, ...found.judge];
  setText(byId("doing"), doing.filter(Boolean).join(" · "));
  byId("note").hidden = !found.away;
  byId("note").textContent = `the broker does not answer, so this is what the record says: ${found.away}`;
  paintTraits(found);
  paintWorkers(found);
  byId("troubles").replaceChildren(...found.troubles.map((text) => element("li", { text })));
  if (!byId("hold").checked) paintAnswers(found.answers);
}

// A screen reader says what changes, and nothing else.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function paintTraits({ stages, traits }) {
  const heads = ["trait", ...stages, "verdict", "contrast"];
  byId("traits").replaceChildren(
    element("thead", {}, [element("tr", {}, heads.map((text) => element("th", { text, scope: "col" })))]),
    element("tbody", {}, traits.map((one) => element("tr", {}, [
      element("th", { text: one.trait, scope: "row" }),
      ...stages.map((stage) => stageCell(one, stage)),
      verdictCell(one),
      element("td", { text: one.contrast === null ? "" : one.contrast.toFixed(1) }),
    ]))),
  );
}

function stageCell(one, stage) {
  const count = one[stage];
  if (!count || !count.total) return element("td");
  const bar = element("progress", { max: count.total, value: count.done, "aria-label": `${one.trait}, ${stage}` });
  return element("td", {}, [bar, `${count.done} of ${count.total}`]);
}

function verdictCell({ verdict, is_finished: isFinished, reasons, notes }) {
  if (verdict === null) return element("td", { text: "not yet" });
  const text = `${MARKS[verdict] ?? ""} ${verdict}${isFinished ? "" : ", not yet checked"}`.trim();
  const cell = element("td", {}, [element("span", { text, className: `verdict ${verdict.replaceAll(" ", "-")}` })]);
  if (reasons.length || notes.length) cell.title = [...reasons, ...notes].join("\n");
  return cell;
}

function paintWorkers({ workers, has_broker: hasBroker, flower }) {
  const heads = ["worker", "host", "device", "serves", "busy", "works on"];
  byId("workers").hidden = !workers.length;
  byId("workers").replaceChildren(
    element("thead", {}, [element("tr", {}, heads.map((text) => element("th", { text, scope: "col" })))]),
    element("tbody", {}, workers.map((one) => element("tr", {}, [
      element("th", { text: one.name, scope: "row" }),
      ...[one.host, one.device, one.model, one.busy === null ? "" : `${Math.round(100 * one.busy)} %`,
        one.jobs.map(([, job, seconds]) => `${job} for ${Math.round(seconds)} s`).join(", ")]
        .map((text) => element("td", { text })),
    ]))),
  );
  const note = byId("workers-note");
  if (!hasBroker) {
    note.textContent = "Without --broker-url this page knows the run's record alone: a command with workers of its own says in its terminal what they do.";
  } else {
    const link = element("a", { text: flower, href: flower, rel: "noreferrer" });
    note.replaceChildren(...(workers.length ? [] : ["No worker is there. "]),
      "Queues and tasks are Flower's: ", link, ", once orchestrate flower runs.");
  }
}

function paintAnswers(answers) {
  const now = JSON.stringify(answers);
  if (now === answersShown) return;
  answersShown = now;
  byId("answers").replaceChildren(...answers.map((one) => element("li", {}, [
    element("p", { className: "soft", text: aboutAnswer(one) }),
    element("p", { className: "question", text: one.question }),
    element("p", { className: "response", tabindex: "0", text: one.response || "(empty response)" }),
    ...(one.instruction ? [element("p", { className: "soft", text: `Instruction: ${one.instruction}` })] : []),
  ])));
}

function aboutAnswer(one) {
  const score = (value) => (value === null ? "unscored" : value.toFixed(0));
  const scores = one.is_judged ? `trait ${score(one.trait_score)}, coherence ${score(one.coherence_score)}` : "not judged yet";
  return [one.trait, one.part, one.polarity, scores].filter(Boolean).join(" · ");
}
