// The chips that show and hide traits, and the table of their statistics.

let figures = [];   // {trait, here, cells}

function startStats() {
  byId("show-all").addEventListener("click", () => { state.hidden.clear(); changed("hidden"); });
  byId("show-one").addEventListener("click", () => {
    state.hidden = new Set(traitsOf(state.record).filter((trait) => trait !== state.trait));
    changed("hidden");
  });
  onChange(["record", "tokens", "trait", "hidden", "theme"], paintChips);
  onChange(["record", "tokens", "trait", "hidden", "units"], layOutStats);
  onChange(["record", "tokens", "trait", "hidden", "units"], paintStats);
  onChange(["record", "tokens", "token", "trait", "hidden", "units"], paintHere);
}

const paintChips = onlyWhenLooksChange(() => {
  const focused = document.activeElement?.dataset?.chip;
  const chips = traitsOf(state.record).map(chip);
  byId("traits").replaceChildren(...chips);
  if (focused !== undefined) chips.find((one) => one.dataset.chip === focused)?.focus();
});

function chip(trait) {
  const button = element("button", {
    className: trait === state.trait ? "chip chosen" : "chip", type: "button", "data-chip": trait,
    "aria-pressed": String(!state.hidden.has(trait)), title: "Show or hide this trait",
  }, [lineSample(trait), element("span", { text: trait })]);
  button.addEventListener("click", () => {
    if (!state.hidden.delete(trait)) state.hidden.add(trait);
    changed("hidden");
  });
  return button;
}

const layOutStats = onlyWhenLooksChange(() => {
  const hasDynamics = state.record.dynamics.size > 0;
  const heads = ["Trait", "Here", "Mean", "Std", "Min", "Max"];
  if (state.beside) heads.push(`${sentence(besideWord())} mean`, "Change");
  if (hasDynamics) heads.push("Commits at", "Step at (p)", "Peak velocity", "Mean velocity", "Persistence");
  const focused = document.activeElement?.dataset?.row;
  figures = [];
  byId("stats").replaceChildren(
    element("thead", {}, [element("tr", {}, heads.map((text) => element("th", { text, scope: "col" })))]),
    element("tbody", {}, shownTraits().map((trait) => statsRow(trait, heads.length - 2))),
  );
  if (focused !== undefined) [...byId("stats").querySelectorAll("button")].find((b) => b.dataset.row === focused)?.focus();
  byId("stats-note").textContent = [
    `${units() === "z" ? "z-scores against the baseline" : "Raw scores"}, without smoothing; std is the population's.`,
    hasDynamics ? "Tokens are counted from 1. The dynamics are those of the file, on its raw scores." : "",
  ].join(" ").trim();
});

function statsRow(trait, nFigures) {
  const name = element("button", {
    text: trait, type: "button", "data-row": trait, title: "Show this trait in the heat map",
  });
  name.addEventListener("click", () => setTrait(trait));
  const here = element("td");
  const cells = Array.from({ length: nFigures }, () => element("td"));
  figures.push({ trait, here, cells });
  const heading = element("th", { scope: "row" }, [name]);
  return element("tr", { className: trait === state.trait ? "chosen" : "" }, [heading, here, ...cells]);
}

function paintStats() {
  const hasDynamics = state.record.dynamics.size > 0;
  for (const { trait, cells } of figures) {
    const own = summary(scoresOf(state.record, trait));
    const texts = [own?.mean, own?.std, own?.min, own?.max].map(shown);
    if (state.beside) {
      const mean = summary(scoresOf(state.beside, trait))?.mean;
      texts.push(shown(mean), shown(mean === undefined || !own ? NaN : mean - own.mean));
    }
    if (hasDynamics) texts.push(...dynamicsTexts(state.record.dynamics.get(trait)));
    cells.forEach((cell, i) => { cell.textContent = texts[i]; });
  }
}

function dynamicsTexts(found) {
  return [
    found?.commitment == null ? "—" : String(found.commitment + 1),
    found?.step == null ? "—" : `${found.step + 1} (${showP(found.stepP)})`,
    shown(found?.peakVelocity),
    shown(found?.meanVelocity),
    Number.isInteger(found?.persistence) ? String(found.persistence) : "—",
  ];
}

function paintHere() {
  for (const { trait, here } of figures) here.textContent = shown(scoresOf(state.record, trait)[state.token]);
}
