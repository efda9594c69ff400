// What else the model could have said at the current token, where the file kept it.

function startAlternatives() {
  onChange(["record", "tokens", "token"], paintAlternatives);
}

function paintAlternatives() {
  const found = state.record.alternatives?.[state.token] ?? [];
  byId("alternatives").hidden = !state.record.alternatives;
  const said = state.record.tokens[state.token];
  byId("alternative-rows").replaceChildren(...found.map(([text, probability]) => {
    const bar = element("b");
    bar.style.width = `${100 * Math.min(1, Math.max(0, probability))}%`;
    return element("tr", { className: text === said ? "chosen" : "" }, [
      element("th", { scope: "row", text: `${visible(text) || "(the end, or part of a letter)"}${text === said ? " (said)" : ""}` }),
      element("td", { className: "share" }, [bar]),
      element("td", { text: `${(100 * probability).toFixed(1)} %` }),
    ]);
  }));
}
