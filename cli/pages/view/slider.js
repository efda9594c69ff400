// The token slider and the keys.

const LEAP = 10;

function startSlider() {
  const slider = byId("token");
  slider.addEventListener("input", () => setToken(Number(slider.value)));
  byId("previous-token").addEventListener("click", () => setToken(state.token - 1));
  byId("next-token").addEventListener("click", () => setToken(state.token + 1));
  document.addEventListener("keydown", pressed);
  onChange(["record", "tokens", "token", "trait", "units"], paintSlider);
}

function pressed(event) {
  if (!state.record || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const isOurs = event.target === byId("token");
  // Arrows keep their own meaning in lists, in the other sliders and in scrolled boxes.
  if (!isOurs && event.target.closest("select, input, textarea, [role=radiogroup]")) return;
  const step = event.shiftKey ? LEAP : 1;
  const targets = {
    ArrowRight: state.token + step, ArrowLeft: state.token - step,
    Home: 0, End: nTokens() - 1,
    ...(isOurs ? {
      ArrowUp: state.token + step, ArrowDown: state.token - step,
      PageUp: state.token + LEAP, PageDown: state.token - LEAP,
    } : {}),
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  setToken(targets[event.key]);
}

function paintSlider() {
  const slider = byId("token"), count = nTokens();
  const token = state.record.tokens[state.token] ?? "";
  slider.max = String(Math.max(0, count - 1));
  slider.value = String(state.token);
  slider.disabled = count < 2;
  byId("previous-token").disabled = state.token <= 0;
  byId("next-token").disabled = state.token >= count - 1;
  byId("token-count").textContent = count ? `${state.token + 1} / ${count}` : "no tokens";
  byId("token-text").textContent = visible(token);
  const score = scoresOf(state.record, state.trait)[state.token];
  slider.setAttribute("aria-valuetext",
    `token ${state.token + 1} of ${count}, ${token.trim() || "white space"}, ${state.trait} ${shown(score)}`);
}
