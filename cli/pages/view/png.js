// The present view as one picture: text, bars, lines and figures, drawn anew at twice the size.

const PNG_WIDTH = 1400, PNG_SCALE = 2, MARGIN = 32, TEXT_ROWS = 40, ROW = 24;

function startPng() {
  byId("png").addEventListener("click", savePng);
}

function savePng() {
  // Drawn twice: the first time to learn the height.
  const height = drawPage(document.createElement("canvas").getContext("2d"));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: PNG_WIDTH * PNG_SCALE, height: Math.ceil(height) * PNG_SCALE,
  });
  const context = canvas.getContext("2d");
  context.scale(PNG_SCALE, PNG_SCALE);
  context.fillStyle = color("card");
  context.fillRect(0, 0, PNG_WIDTH, height);
  drawPage(context);
  canvas.toBlob((blob) => {
    if (!blob) { say(["The picture could not be made: show fewer traits and try again."]); return; }
    const link = element("a", { download: pngName(), href: URL.createObjectURL(blob) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}

function pngName() {
  const set = state.dataSets[state.dataSet];
  const stem = set.name.replace(/\.jsonl?$/, "").replace(/[^\w-]+/g, "_");
  return `${stem}_${set.records.indexOf(state.home) + 1}_${String(state.trait).replace(/[^\w-]+/g, "_")}.png`;
}

function drawPage(context) {
  let y = MARGIN;
  y = drawHeading(context, y);
  for (const { record } of panes) {
    if (record !== state.record) y = drawBesideName(context, y);
    y = drawTokens(context, record, y) + 16;
  }
  y = drawBarsRow(context, y + 8) + 24;
  const chart = chartFrame(PNG_WIDTH - 2 * MARGIN, 380);
  context.save();
  context.translate(MARGIN, y);
  drawLines(context, chart);
  drawCursor(context, chart);
  context.restore();
  return drawTable(context, y + 410) + MARGIN;
}

function drawHeading(context, y) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = color("ink");
  context.font = `600 ${FONT.replace("12px", "18px")}`;
  context.fillText(fit(context, state.record.prompt.replace(/\s+/g, " "), PNG_WIDTH - 2 * MARGIN), MARGIN, y);
  context.font = FONT.replace("12px", "13px");
  context.fillStyle = color("soft");
  const middle = heat.isZero ? "" : `, middle ${shown(heat.middle)}`;
  context.fillText(`Heat map of ${state.trait} (${units()}), ${shown(heat.middle - heat.reach)} to ` +
    `${shown(heat.middle + heat.reach)}${middle}; token ${state.token + 1} of ${nTokens()}; ` +
    `${state.series}, smoothing ${state.window}`, MARGIN, y + 26);
  return y + 54;
}

function drawBesideName(context, y) {
  context.font = FONT.replace("12px", "13px");
  context.fillStyle = color("soft");
  context.fillText(responseName(state.beside), MARGIN, y);
  return y + ROW;
}

function drawTokens(context, record, top) {
  context.font = FONT.replace("12px", "15px");
  const scores = scoresOf(record, state.trait);
  let x = MARGIN, y = top, rows = 0;
  for (let i = 0; i < record.tokens.length; i++) {
    const text = record.tokens[i].replace(/\n+/g, "↵").replaceAll("\t", " ");
    const width = context.measureText(text).width;
    if (x + width > PNG_WIDTH - MARGIN && x > MARGIN) [x, y, rows] = [MARGIN, y + ROW, rows + 1];
    if (rows >= TEXT_ROWS) {
      context.fillText(`… ${record.tokens.length - i} more tokens`, MARGIN, y);
      return y + ROW;
    }
    drawToken(context, { text, width, x, y, score: scores[i], isNow: i === state.token });
    x += width;
    if (record.tokens[i].includes("\n")) [x, y, rows] = [MARGIN, y + ROW, rows + 1];
  }
  return y + ROW;
}

function drawToken(context, { text, width, x, y, score, isNow }) {
  const away = Number.isFinite(score) ? Math.max(-1, Math.min(1, (score - heat.middle) / heat.reach)) : 0;
  context.globalAlpha = Math.abs(away) * 0.62;
  context.fillStyle = color(away > 0 ? "above" : "below");
  context.fillRect(x, y - 10, width, 20);
  context.globalAlpha = 1;
  context.fillStyle = color("ink");
  const thick = 3 * Math.abs(away);
  if (away > 0) context.fillRect(x, y + 10 - thick, width, thick);
  else for (let dot = 0; dot < width; dot += 5) context.fillRect(x + dot, y + 10 - thick, Math.min(2, width - dot), thick);
  context.fillText(text, x, y);
  if (!isNow) return;
  context.strokeStyle = color("mark");
  context.lineWidth = 2;
  context.strokeRect(x - 1, y - 11, width + 2, 22);
}

function drawBarsRow(context, top) {
  context.font = FONT.replace("12px", "13px");
  const left = MARGIN + 190, width = PNG_WIDTH - 2 * MARGIN - 340;
  let y = top;
  for (const trait of shownTraits()) {
    const scores = shownRecords().map((record) => scoresOf(record, trait)[state.token]);
    context.fillStyle = color("ink");
    context.fillText(fit(context, trait, 180), MARGIN, y);
    scores.forEach((score, i) => {
      if (!Number.isFinite(score)) return;
      context.fillStyle = i ? color("soft") : lookOf(trait).color;
      const from = share(Math.min(0, score)), to = share(Math.max(0, score));
      context.fillRect(left + from * width, y - 8 + i * 10, (to - from) * width, scores.length > 1 ? (i ? 5 : 9) : 15);
    });
    context.fillStyle = color("ink");
    context.fillText(scores.map(shown).join(`  ${besideWord()} `), left + width + 12, y);
    y += ROW;
  }
  context.fillStyle = color("soft");
  context.fillRect(left + share(0) * width, top - 12, 1, y - top);
  return y;
}

function drawTable(context, top) {
  const table = [...byId("stats").rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const column = Math.min(120, (PNG_WIDTH - 2 * MARGIN - 190) / (table[0].length - 1));
  table.forEach((cells, i) => cells.forEach((text, j) => {
    context.font = FONT;
    context.fillStyle = color(i ? "ink" : "soft");
    context.textAlign = j ? "right" : "left";
    context.fillText(fit(context, text, j ? column - 8 : 180), j ? MARGIN + 190 + j * column : MARGIN, top + i * 22);
  }));
  context.textAlign = "left";
  return top + table.length * 22;
}
