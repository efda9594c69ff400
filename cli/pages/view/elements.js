// Lists to choose from, samples of lines, and messages.

// `options` is [[value, text]]. An unchanged list is left alone: it may be open while tokens come.
function fillSelect(select, options, chosen) {
  const isSame = options.length === select.options.length &&
    options.every(([value, text], i) => select.options[i].value === value && select.options[i].text === text);
  if (!isSame) select.replaceChildren(...options.map(([value, text]) => element("option", { value, text })));
  select.value = chosen;
}

function lineSample(trait) {
  const look = lookOf(trait);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", "30");
  svg.setAttribute("height", "10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const parts = { x1: 0, y1: 5, x2: 30, y2: 5, stroke: look.color, "stroke-width": 3 };
  for (const [name, value] of Object.entries(parts)) line.setAttribute(name, String(value));
  line.setAttribute("stroke-dasharray", look.dash.join(" ") || "none");
  svg.append(line);
  return svg;
}

// A token's text in one line, its white space visible.
const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");

function say(problems) {
  for (const problem of problems.slice(0, 8)) sayOne(problem);
  if (problems.length > 8) sayOne(`${problems.length - 8} more problems of this kind`);
}

function sayOne(text) {
  const close = element("button", { text: "✕", type: "button", "aria-label": "Dismiss" });
  const message = element("p", {}, [element("span", { text }), close]);
  close.addEventListener("click", () => message.remove());
  byId("messages").append(message);
}
