// Light or dark as the system says, or as chosen here with a button.

const THEMES = ["auto", "light", "dark"];
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";

const isDark = () => theme === "dark" || (theme === "auto" && prefersDark.matches);

// Sets `data-theme` of <html> to light or dark, and calls `applied` then and at every change.
function startTheme(button, applied = () => {}) {
  try {
    theme = THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  } catch { /* storage is closed to this page: the system's theme holds */ }
  const apply = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    button.textContent = `Theme: ${theme}`;
    applied();
  };
  prefersDark.addEventListener("change", apply);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try { localStorage.setItem("theme", theme); } catch { /* not kept */ }
    apply();
  });
  apply();
}
