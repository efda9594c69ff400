// Files that a page hands to whoever reads it.

const KEPT_MS = 10_000;   // a browser may begin to read late

function saveFile(name, blob) {
  const link = document.createElement("a");
  link.download = name;
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}

const fileName = (text) => text.replace(/[^\w-]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 80) || "file";

// Rows of cells as CSV. A text that a spreadsheet would run as a formula gets a quote first.
function csvOf(rows) {
  return rows.map((cells) => cells.map(csvCell).join(",")).join("\n") + "\n";
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^([=@\t\r]|[+-]\S)/.test(value) ? `'${value}` : String(value);
  return `"${text.replaceAll('"', '""')}"`;
}
