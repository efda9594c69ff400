// A response as it is written: server-sent events of the serving command, one JSON line each.

function startLive(url) {
  const source = new EventSource(url);
  let lineNumber = 0, stream = null, nRecords = 0, takesOver = true;

  const status = (text, isOn) => {
    byId("live").hidden = false;
    byId("live").textContent = text;
    byId("live").classList.toggle("on", isOn);
  };
  status("waiting for the first token", true);

  const begin = () => {
    stream = newStream();
    lineNumber = nRecords = 0;
    addDataSet({ name: "live", records: stream.records, isLive: true });
  };

  source.onmessage = (message) => {
    if (!stream) begin();
    lineNumber++;
    const problems = [];
    collect(problems, "live:", () => {
      const event = parseLine(message.data, lineNumber);
      collect(problems, `live: line ${lineNumber}`, () => { stream.add(event); arrived(event); });
    });
    say(problems);
  };

  function arrived(event) {
    const count = stream.records.reduce((sum, record) => sum + record.tokens.length, 0);
    status(`live, ${count} tokens`, true);
    if (event.event === "end") {
      source.close();
      status(`finished, ${count} tokens`, false);
      return;
    }
    if (takesOver && stream.records.some(({ raw }) => raw.size)) {
      takesOver = false;
      showDataSet(state.dataSets.findIndex(({ isLive }) => isLive));
    }
    if (stream.records.length !== nRecords || event.event === "done") changed("data", "list");
    nRecords = stream.records.length;
    if (!state.record || !state.dataSets[state.dataSet].isLive) return;
    if (event.beside !== undefined && !state.beside && state.home.steered.length && state.wanted.beside !== null) {
      state.beside = state.home.steered[0];
      changed("record");
    }
    traitsOf(state.record).forEach(lookOf);
    // At the last token the slider moves along; moved back, it stays where it was put.
    if (event.event === "token" && state.token >= nTokens() - 2) state.token = Math.max(0, nTokens() - 1);
    changed("tokens", "token");
  }

  // The file was written anew.
  source.addEventListener("reset", () => {
    stream = null;
    takesOver = state.record === null || state.dataSets[state.dataSet].isLive === true;
  });
  source.onerror = () => {
    status(source.readyState === EventSource.CLOSED ? "the server has stopped" : "reconnecting…", false);
  };
}
