// What is on show, in the part of the address behind #: it lands there again in any window.

const ADDRESS_WAIT_MS = 250;   // browsers refuse addresses that change with every token of a drag

// `values()` gives {name: text}, "" and null left out; `land(values)` takes what an address holds,
// at the start and whenever a person changes it. Returns {changed, now}: tell `changed` of every
// change; `now` writes the address at once and returns it whole.
function addressOf({ values, land }) {
  let waiting = 0, written = "";

  function now() {
    clearTimeout(waiting);
    waiting = 0;
    const kept = Object.entries(values()).filter(([, value]) => value !== "" && value != null);
    written = `#${new URLSearchParams(kept.map(([name, value]) => [name, String(value)]))}`;
    if (location.hash !== written) history.replaceState(null, "", written);
    return location.href;
  }

  function changed() {
    if (!waiting) waiting = setTimeout(now, ADDRESS_WAIT_MS);
  }

  const read = () => {
    if (location.hash.length > 1) land(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  };
  addEventListener("hashchange", () => { if (location.hash !== written) read(); });
  return { changed, now, read };
}

// A button that copies the address, or says where it stands.
function startCopyAddress(button, address) {
  const name = button.textContent;
  button.addEventListener("click", async () => {
    const whole = address.now();
    try {
      await navigator.clipboard.writeText(whole);
      button.textContent = "Copied";
    } catch {
      button.textContent = "It is in the address bar";
    }
    setTimeout(() => { button.textContent = name; }, 2000);
  });
}
