"""A headless Chromium, driven through its pipe: clicks and keys as a person's, and what the page asks the network."""

import base64
import glob
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
)
PLAYWRIGHT = "~/.cache/ms-playwright/chromium*/chrome-linux*/*"
KEY_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Tab": 9}
SECONDS = 30.0


def find_browser() -> str | None:
    """Path of a Chromium on this machine."""
    installed = filter(None, map(shutil.which, NAMES))
    fetched = (
        path
        for path in glob.glob(os.path.expanduser(PLAYWRIGHT))
        if Path(path).name in ("headless_shell", "chrome")
    )
    return next(itertools.chain(installed, fetched), None)


class Browser:
    """One page of one browser process.

    Args:
        path: of the browser.
        home: an empty directory for its profile.
    """

    def __init__(self, path: str, home: Path) -> None:
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()

        def connect() -> None:  # The browser reads at descriptor 3 and writes at 4.
            for source, target in ((os.dup(commands), 3), (os.dup(events), 4)):
                os.dup2(source, target)

        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        self._process = subprocess.Popen(
            [path, *options, f"--user-data-dir={home}", "about:blank"],
            close_fds=False,
            preexec_fn=connect,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(events)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.errors: list[str] = []
        """What the page's console says was wrong."""
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._commands)
        os.close(self._events)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of a command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, file: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a file anew and wait until it has drawn itself."""
        self.errors, self.requests = [], []
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=file.as_uri())
        self.wait("document.readyState === 'complete' && document.querySelector('main section') !== null")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """Value of an expression in the page, or what its promise comes to."""
        given = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def wait(self, script: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < deadline, f"waited {SECONDS} s for {script}"
            time.sleep(0.02)

    def pick(self, place: str, label: str, value: str) -> None:
        """Choose an option of the select under a label; it is `window.picked` from then on."""
        labels = f"[...document.querySelectorAll('{place} label')]"
        found = f"{labels}.find((each) => each.textContent.startsWith('{label}'))"
        self.run(f"window.picked = {found}.querySelector('select')")
        self.run(f"picked.value = '{value}'; picked.dispatchEvent(new Event('change'))")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = KEY_CODES.get(key, ord(key[0].upper()))
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._events, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
