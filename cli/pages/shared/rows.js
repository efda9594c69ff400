// A list of any length of which only the rows in view are in the page, one of them chosen.

const ROWS_MORE = 8;   // above and below what is in view, so that a quick scroll shows no gap

// `box` scrolls and becomes a listbox; every row is `rowHeight` CSS pixels high. `draw(item, at)`
// gives a row's children and `choose(item, at)` is called for a click or a key. Returns
// {show(items, chosen), mark(chosen), reveal(chosen)}: `chosen` is the row's number, -1 for none.
function rowList(box, { rowHeight, draw, choose }) {
  const inner = document.createElement("div");
  let items = [], chosen = -1, first = 0, drawnRows = [];
  inner.className = "rows";
  inner.setAttribute("role", "presentation");
  box.setAttribute("role", "listbox");
  box.tabIndex = 0;
  box.replaceChildren(inner);
  box.addEventListener("scroll", () => paint(false), { passive: true });
  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / rowHeight) - 1);
    const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page,
      Home: 0, End: items.length - 1 }[event.key];
    if (to === undefined || !items.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    pick(Math.min(items.length - 1, Math.max(0, to)));
  });
  inner.addEventListener("click", (event) => {
    const row = event.target.closest("[data-at]");
    if (row) pick(Number(row.dataset.at));
  });
  new ResizeObserver(() => paint(false)).observe(box);

  function pick(at) {
    mark(at);
    reveal(at);
    choose(items[at], at);
  }

  function show(list, at) {
    [items, chosen] = [list, at];
    inner.style.height = `${items.length * rowHeight}px`;
    box.scrollTop = 0;
    paint(true);
  }

  function mark(at) {
    if (at === chosen) return;
    chosen = at;
    paint(true);
  }

  function reveal(at) {
    if (at < 0) return;
    const top = at * rowHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + rowHeight - box.clientHeight;
    paint(false);
  }

  function paint(isNew) {
    const from = Math.max(0, Math.floor(box.scrollTop / rowHeight) - ROWS_MORE);
    const to = Math.min(items.length, Math.ceil((box.scrollTop + box.clientHeight) / rowHeight) + ROWS_MORE);
    if (!isNew && from === first && to - from === drawnRows.length) return;
    const kept = isNew ? new Map() : new Map(drawnRows.map((row) => [Number(row.dataset.at), row]));
    first = from;
    drawnRows = [];
    for (let at = from; at < to; at++) drawnRows.push(kept.get(at) ?? rowAt(at));
    inner.replaceChildren(...drawnRows);
    const now = chosen >= from && chosen < to ? `${box.id}-${chosen}` : "";
    if (now) box.setAttribute("aria-activedescendant", now);
    else box.removeAttribute("aria-activedescendant");
  }

  function rowAt(at) {
    const row = document.createElement("div");
    row.id = `${box.id}-${at}`;
    row.className = "a-row";
    row.dataset.at = String(at);
    row.style.top = `${at * rowHeight}px`;
    row.style.height = `${rowHeight}px`;
    for (const [name, value] of [["role", "option"], ["aria-selected", at === chosen],
      ["aria-setsize", items.length], ["aria-posinset", at + 1]]) row.setAttribute(name, String(value));
    row.append(...draw(items[at], at));
    return row;
  }

  return { show, mark, reveal };
}
