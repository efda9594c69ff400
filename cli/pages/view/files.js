// Files that people open: chosen, dropped, or carried inside the page.

function startFiles() {
  const picker = byId("picker");
  for (const id of ["open", "open-too"]) byId(id).addEventListener("click", () => picker.click());
  picker.addEventListener("change", async () => {
    await openFiles([...picker.files]);
    picker.value = "";
  });
  byId("example").addEventListener("click", () => {
    openTexts([{ name: "example (invented numbers)", text: byId("example-file").textContent }]);
  });
  startDrop();
}

function startDrop() {
  const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").hidden = true; });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    byId("drop").hidden = true;
    openFiles([...event.dataTransfer.files]);
  });
}

async function openFiles(files) {
  const texts = [];
  for (const file of files) {
    try {
      texts.push({ name: file.name, text: await file.text() });
    } catch (error) {
      sayOne(`${file.name}: cannot be read (${error.message}); is it a folder?`);
    }
  }
  openTexts(texts);
}

// Opens what can be used, shows the first of it, and says what cannot be and why.
function openTexts(texts) {
  byId("messages").replaceChildren();
  let first = null;
  const before = state.home;
  for (const { name, text } of texts) {
    const { records, problems } = readFile(name, text);
    say(problems);
    if (!records.length) continue;
    const index = addDataSet({ name, records });
    first ??= index;
  }
  if (first === null) return;
  changed("data", "list");
  landAwaited();
  if (awaited && texts.length) {
    say([`The address leads into ${awaited.set}, which is not open: open that file to land there`]);
  }
  // an address of what is open now has led to its record
  if (state.home === before) showDataSet(first);
}

// The first record of a data set, with nothing left out of the list.
function showDataSet(set) {
  state.filter = { ...state.filter, text: "", set: "", trait: "", polarity: "", flag: "" };
  changed("data", "list");
  chooseRecord(set, 0);
}
