"""A real Chromium without a window, driven over its DevTools pipe; nothing but Python is needed.

Knows nothing of our page: open, evaluate, keys, pointer, dropped files, screenshots, and every
address the browser asked for.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
ANSWER_S = 60.0
KEYS = {"Home": 36, "End": 35, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
SHIFT = 8
# DevTools' pipe: the browser reads commands from 3 and writes answers to 4
BROWSER_READS, BROWSER_WRITES = 3, 4


def chromium_or_skip() -> str:
    """The browser's path. A machine without one, CI's too, skips what needs it and says so."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is not None:
        return path
    return pytest.skip("no Chromium on the PATH: install the package `chromium` to test the page")


@dataclass
class Tab:
    """One page of a running browser."""

    to_browser: int
    from_browser: int
    session: str = ""
    last_id: int = 0
    unread: bytes = b""
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """One DevTools command; its answer."""
        self.last_id += 1
        message: dict[str, Any] = {"id": self.last_id, "method": method, "params": parameters or {}}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.last_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def open_anew(self, url: str) -> None:
        """As in a new window: nothing of the page before is left, though only # differed."""
        self.call("Page.navigate", {"url": "about:blank"})
        self.wait("location.href === 'about:blank'")
        self.open(url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", parameters)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, *, seconds: float = ANSWER_S) -> None:
        """Until the JavaScript condition holds."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)

    def frame(self) -> None:
        """Until what was changed is painted."""
        self.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def text(self, selector: str) -> str:
        """The visible text of the first element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, down and up."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                {"type": kind, "modifiers": SHIFT if shift else 0, **code},
            )
        self.frame()

    def move_to(self, selector: str) -> None:
        """The pointer to the middle of the first element."""
        self._mouse("mouseMoved", *self._middle(selector))
        self.frame()

    def click(self, selector: str) -> None:
        """A real click in the middle of the first element, scrolled into view."""
        x, y = self._middle(selector)
        self._mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, x, y)
        self.frame()

    def select(self, selector: str, value: str) -> None:
        """Choose an option as a person does."""
        self.evaluate(
            f"(s => {{ s.value = {json.dumps(value)}; "
            "s.dispatchEvent(new Event('change', {bubbles: true})); })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.frame()

    def drop(self, files: Sequence[Path]) -> None:
        """Files dragged from the desktop onto the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            place = {"type": kind, "x": 200, "y": 200, "data": data}
            self.call("Input.dispatchDragEvent", place)

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Another window size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        self.frame()

    def prefers(self, scheme: str) -> None:
        """What the system says of light and dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", {"features": [feature]})
        self.frame()

    def screenshot(self) -> bytes:
        """The whole page, as PNG."""
        shot = {"format": "png", "captureBeyondViewport": True}
        return base64.b64decode(self.call("Page.captureScreenshot", shot)["data"])

    def _middle(self, selector: str) -> tuple[float, float]:
        x, y = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'nearest'}}); const r = e.getClientRects()[0]; "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        return x, y

    def _mouse(self, kind: str, x: float, y: float) -> None:
        pressed = 0 if kind == "mouseMoved" else 1
        button = {"button": "left" if pressed else "none", "clickCount": pressed}
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **button})

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.from_browser], [], [], ANSWER_S)
            assert ready, "the browser does not answer"
            block = os.read(self.from_browser, 2**16)
            assert block, "the browser has ended"
            self.unread += block
        message, _, self.unread = self.unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        self._note(answer)
        return answer

    def _note(self, answer: Mapping[str, Any]) -> None:
        method, parameters = answer.get("method"), answer.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"].get("exception", parameters)))


@contextlib.contextmanager
def running_chromium(path: str, profile: Path) -> Iterator[Tab]:
    """A browser with one empty tab; it and its profile's files end with the context."""
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # above 4, so that putting one on its number never closes the other
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands_out, answers_in)]

    def put_in_place() -> None:
        os.dup2(high[0], BROWSER_READS)
        os.dup2(high[1], BROWSER_WRITES)

    process = subprocess.Popen(
        [
            path,
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",  # only our own page is opened, and containers have no sandbox
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--force-color-profile=srgb",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        preexec_fn=put_in_place,
        pass_fds=(BROWSER_READS, BROWSER_WRITES),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for descriptor in (commands_out, answers_in, *high):
        os.close(descriptor)
    tab = Tab(to_browser=commands_in, from_browser=answers_out)
    try:
        _attach(tab)
        yield tab
    finally:
        process.terminate()
        process.wait(timeout=60)
        os.close(commands_in)
        os.close(answers_out)


def _attach(tab: Tab) -> None:
    pages: list[dict[str, Any]] = []
    while not pages:
        targets = tab.call("Target.getTargets")["targetInfos"]
        pages = [target for target in targets if target["type"] == "page"]
    attach = {"targetId": pages[0]["targetId"], "flatten": True}
    tab.session = tab.call("Target.attachToTarget", attach)["sessionId"]
    for domain in ("Page", "Runtime", "Network"):
        tab.call(f"{domain}.enable")
