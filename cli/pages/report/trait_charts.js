// The charts of one trait: score histograms, the funnel, quality by layer, the layer x method map.

let hatchCount = 0;

function scoreHistogram(trait, metric, threshold) {
  const sides = ["positive", "negative"].map((polarity) => trait.histograms[polarity][metric]);
  const top = Math.max(1, ...sides.flat());
  const n = sides[0].length;
  const id = "h" + hatchCount++;
  const draw = (width, height) => {
    const yTicks = ticks(0, top, 4).filter((tick) => Number.isInteger(tick));
    const { area, sx, sy, parts } = axes(width, height, { x: [0, 100], y: [0, top * 1.05], xTicks: [0, 25, 50, 75, 100], yTicks, xLabel: metric + " score" });
    const half = (sx(100 / n) - sx(0)) / 2 - 1;
    const bars = sides.map((counts, side) => counts.map((count, k) => count === 0 ? null : svg("rect", {
      class: side ? "neg" : "pos", x: sx((100 * k) / n) + 1 + side * half, width: Math.max(1, half - 0.5),
      y: sy(count), height: area.bottom - sy(count) }, svg("title", {}, `${count} ${side ? "negative" : "positive"} at ${(100 * k) / n} to ${(100 * (k + 1)) / n}`))));
    const lines = threshold.map(([value, text, anchor]) => [
      svg("line", { class: "threshold", x1: sx(value), x2: sx(value), y1: area.top, y2: area.bottom }),
      text ? svg("text", { class: "note", x: sx(value) + (anchor === "end" ? -4 : 4), y: area.top + 10, "text-anchor": anchor }, text) : null,
    ]).flat();
    return [hatch(id), parts, bars.flat(), lines];
  };
  return figure(`Scored responses by ${metric} score`, `Histogram of ${metric} scores`, 210, draw, legend([["pos", "positive"], ["neg", "negative"], ["threshold", "threshold"]]));
}

function funnelTable(trait, path) {
  const steps = trait.funnel.positive.map((step) => step.step);
  const bar = (polarity, k) => {
    const all = trait.funnel[polarity][0].n || 1;
    const share = el("span", { class: "share " + (polarity === "positive" ? "pos" : "neg") });
    share.style.width = (100 * trait.funnel[polarity][k].n) / all + "%";
    return el("div", { class: "bar" }, num(`${path}/funnel/${polarity}/${k}/n`, 0), el("div", { class: "track" }, share));
  };
  return el("figure", {}, el("figcaption", {}, "From generated to kept"),
    table(["step", "positive", "negative"], steps.map((step, k) => [step, bar("positive", k), bar("negative", k)]), { class: "funnel" }));
}

// series: {values, interval?, kind, label}; every list runs over the layers.
function layerChart(title, yLabel, series, { chosen, y, height = 230 }) {
  const n = series[0].values.length;
  const id = "h" + hatchCount++;
  const all = series.flatMap((one) => [...one.values, ...(one.interval || []).flat()]).filter((v) => v !== null);
  const low = y ? y[0] : Math.min(0, ...all), high = y ? y[1] : Math.max(...all, low + 1e-6);
  const range = y || [low, high + (high - low) * 0.06];
  const draw = (width, h) => {
    const every = Math.max(1, Math.ceil(n / Math.max(4, Math.floor(width / 46))));
    const xTicks = [...Array(n).keys()].filter((k) => k % every === 0);
    const { area, sx, sy, parts } = axes(width, h, { x: [-0.5, n - 0.5], y: range, xTicks, yTicks: ticks(range[0], range[1], 5), xLabel: "layer" });
    const unavailable = (n > 2 ? [0, n - 1] : [0]).map((k) => svg("rect", { x: sx(k - 0.5), width: sx(k + 0.5) - sx(k - 0.5), y: area.top, height: area.bottom - area.top, fill: `url(#${id})` },
      svg("title", {}, k === 0 ? "embedding: not chosen" : "last layer, before the final norm: not chosen")));
    const marked = chosen === null ? [] : [
      svg("line", { class: "chosen", x1: sx(chosen), x2: sx(chosen), y1: area.top, y2: area.bottom }),
      svg("text", { class: "note", x: sx(chosen) + (chosen > n / 2 ? -5 : 5), y: area.bottom - 6, "text-anchor": chosen > n / 2 ? "end" : "start" }, "chosen: " + chosen)];
    const drawn = series.map((one) => {
      const clipped = (value) => value === null ? null : Math.min(range[1], Math.max(range[0], value));
      const bands = one.interval ? band(one.interval.map((p) => clipped(p[0])), one.interval.map((p) => clipped(p[1])), sx, sy, { class: "band " + one.kind }) : [];
      const points = one.values.map((value, k) => [sx(k), value === null ? null : sy(clipped(value))]);
      const dots = one.interval ? points.map(([x, yy], k) => yy === null ? null : svg("circle", { class: "dot " + one.kind, cx: x, cy: yy, r: 3 },
        svg("title", {}, `layer ${k}: ${fixed(one.values[k], 3)} [${fixed(one.interval[k][0], 3)}, ${fixed(one.interval[k][1], 3)}]`))) : [];
      return [...bands, path(points, { class: "line " + one.kind }), ...dots];
    });
    return [hatch(id), unavailable, parts, marked, drawn.flat()];
  };
  return figure(title, `${title} by layer: ${yLabel}`, height, draw, legend(series.map((one) => [one.kind, one.label])));
}

function layerCharts(quality) {
  const d = quality.mean_difference, best = quality.best;
  const method = quality.methods[best.method], chosen = best.layer;
  const rows = method.held_out_half ? "held_out_half" : "fitted";
  const where = rows === "fitted" ? "on the responses it was made from" : "on the half of the questions it was not made from";
  return el("div", { class: "charts" },
    layerChart("Does the mean difference separate what it was not made from? AUROC", "AUROC", [
      { values: d.leave_one_question_out_auroc.value, interval: d.leave_one_question_out_auroc.interval, kind: "first", label: "questions left out" },
      { values: d.leave_one_instruction_out_auroc.value, interval: d.leave_one_instruction_out_auroc.interval, kind: "second", label: "instructions left out" },
      { values: d.random_vector_auroc, kind: "random", label: "95 % of random vectors stay under" },
      { values: d.shuffled_labels_auroc, kind: "shuffled", label: "95 % of shuffled labels stay under" },
    ], { chosen, y: [0.3, 1.02] }),
    layerChart(`How far apart? Cohen's d of ${best.method}`, "Cohen's d", [
      { values: method[rows].cohens_d.value, interval: method[rows].cohens_d.interval, kind: "first", label: where },
    ], { chosen }),
    layerChart("How sure is the direction? Degrees to the true one", "degrees", [
      { values: d.angle_degrees, kind: "first", label: "likely angle of the mean difference" },
      { values: d.angle_upper_degrees, kind: "shuffled", label: "95 % bound" },
    ], { chosen, y: [0, Math.min(90, 1.15 * Math.max(10, ...d.angle_upper_degrees))] }),
    layerChart("How large, and how repeatable?", "share", [
      { values: method.norm_to_residual, kind: "first", label: `norm of ${best.method} / mean norm of the kept activations` },
      { values: d.split_half_cosine.value, interval: d.split_half_cosine.interval, kind: "second", label: "cosine of two random halves (mean difference)" },
    ], { chosen }));
}

// From pale to half dark, one hue: the number in the cell stays readable in both themes.
function shade(cell, share) {
  const part = Math.min(1, Math.max(0, share));
  cell.style.backgroundColor = `color-mix(in oklab, var(--heat) ${Math.round(6 + 38 * part)}%, var(--panel))`;
}

function methodMap(quality, path, fits) {
  const names = Object.keys(quality.methods), n = quality.residual_norm.length;
  const rows = quality.methods[names[0]].held_out_half ? "held_out_half" : "fitted";
  const values = names.map((name) => quality.methods[name][rows].cohens_d.value);
  const top = Math.max(1e-9, ...values.flat().filter((v) => v !== null));
  const body = [...Array(n).keys()].map((layer) => el("tr", { class: layer === 0 || (n > 2 && layer === n - 1) ? "hatched" : "" },
    el("th", { scope: "row" }, layerName(layer, n - 1)),
    names.map((name, k) => {
      const isBest = quality.best.method === name && quality.best.layer === layer;
      const converged = (fits[name][quality.position].converged || [])[layer];
      const cell = el("td", { class: isBest ? "best" : "" }, num(`${path}/methods/${name}/${rows}/cohens_d/value/${layer}`, 2), isBest ? el("span", { class: "flag" }, " ★") : null, converged === 0 ? " †" : null,
        el("div", { class: "interval" }, "AUROC ", num(`${path}/methods/${name}/${rows}/auroc/value/${layer}`, 3)));
      if (layer > 0 && (n <= 2 || layer < n - 1)) shade(cell, Math.max(0, values[k][layer] ?? 0) / top);
      return cell;
    })));
  const anyOpen = names.some((name) => (fits[name][quality.position].converged || []).includes(0));
  const where = rows === "fitted" ? "on the responses the vectors were made from (too few questions to halve)" : "on the half of the questions the vectors were not made from";
  return el("figure", {}, el("figcaption", {}, `Layer x method: Cohen's d ${where}; ★ is the best, hatched rows are not chosen${anyOpen ? "; † the method's own fit did not converge" : ""}`),
    withCsv(el("table", { class: "heat" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"), names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, body)), "layer x method"));
}

// Cosines: blue and orange for the signs, the number in every cell.
function cosineMatrix(names, path, matrix) {
  return matrixTable(names, names, (i, j) => `${path}/${i}/${j}`, matrix);
}

function matrixTable(names, columns, from, matrix) {
  const rows = names.map((name, i) => el("tr", {}, el("th", { scope: "row" }, name), columns.map((other, j) => {
    const value = matrix[i][j];
    if (value === null) return el("td", {}, "–");
    const cell = el("td", { title: `${name}, ${other}` }, num(from(i, j), 2));
    const colour = value < 0 ? "var(--neg)" : "var(--pos)";
    cell.style.backgroundColor = `color-mix(in oklab, ${colour} ${Math.round(40 * Math.abs(value))}%, var(--panel))`;
    return cell;
  })));
  return withCsv(el("table", { class: "matrix" },
    el("thead", {}, el("tr", {}, el("td", {}, ""), columns.map((name) => el("th", { scope: "col" }, el("span", {}, name))))), el("tbody", {}, rows)), "matrix");
}

// curves: {strength, value, interval, kind, label}; lines: [[value, text]] across the plot.
function doseChart(title, curves, { best, lines }) {
  const strengths = curves[0].strength, top = Math.max(...strengths);
  const draw = (width, height) => {
    const { area, sx, sy, parts } = axes(width, height, { x: [0, top * 1.03], y: [0, 100], xTicks: strengths, yTicks: [0, 25, 50, 75, 100], xLabel: "strength" });
    const across = lines.map(([value, text]) => [svg("line", { class: "threshold", x1: area.left, x2: area.right, y1: sy(value), y2: sy(value) }),
      svg("text", { class: "note", x: area.left + 5, y: sy(value) - 4 }, text)]).flat();
    const marked = best === null ? [] : [svg("line", { class: "chosen", x1: sx(best), x2: sx(best), y1: area.top, y2: area.bottom })];
    const drawn = curves.map((one) => {
      const at = (k) => sx(one.strength[k]);
      const bands = band(one.interval.map((p) => p[0]), one.interval.map((p) => p[1]), (k) => at(k), sy, { class: "band " + one.kind });
      const points = one.value.map((value, k) => [at(k), value === null ? null : sy(value)]);
      const dots = points.map(([x, y], k) => y === null ? null : svg("circle", { class: "dot " + one.kind, cx: x, cy: y, r: 3 },
        svg("title", {}, `strength ${fixed(one.strength[k], 2)}: ${fixed(one.value[k], 1)} [${fixed(one.interval[k][0], 1)}, ${fixed(one.interval[k][1], 1)}]`)));
      return [...bands, path(points, { class: "line " + one.kind }), ...dots];
    });
    return [parts, across, marked, drawn.flat()];
  };
  return figure(title, title + " against steering strength", 230, draw, legend(curves.map((one) => [one.kind, one.label])));
}
