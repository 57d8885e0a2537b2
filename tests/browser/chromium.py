"""A small client of Chromium's DevTools protocol: enough to press keys, look at a page, and hear its complaints."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
VARIABLE = "EMBRIEF_CHROMIUM"
OPTIONS = (
    "--headless",
    "--no-sandbox",  # it only ever sees pages of this machine
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
PATIENCE = 20.0
"""Seconds after which whatever is waited for counts as not coming."""
_CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
          "Home": 36, "End": 35, "/": 191}  # fmt: skip


def find() -> str | None:
    """Return the browser of this machine."""
    if named := os.environ.get(VARIABLE):
        return named
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser, with an empty profile. `with Browser(path) as browser`."""

    def __init__(self, path: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="embrief-browser-"))
        self._process = subprocess.Popen(
            [path, *OPTIONS, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = self._connected()
        except BaseException:
            self.__exit__()
            raise
        self._ids = itertools.count(1)
        self._tabs: dict[str, Tab] = {}

    def _connected(self) -> Any:
        from websockets.sync.client import connect

        told = self._folder / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE
        while not told.is_file() or len(told.read_text().split()) < 2:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the browser did not start")
            time.sleep(0.05)
        port, path = told.read_text().split()
        return connect(f"ws://127.0.0.1:{port}{path}", max_size=None, compression=None, proxy=None)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def tab(self) -> Tab:
        """Open a tab that shares nothing with others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        found = self._tabs[session] = Tab(self, session, context)
        found.call("Emulation.setFocusEmulationEnabled", enabled=True)
        for domain in ("Page", "Runtime", "Log", "Network"):
            found.call(f"{domain}.enable")
        return found

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """Do what a method of the protocol does; events that come meanwhile go to their tabs."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            got = json.loads(self._socket.recv(PATIENCE))
            if got.get("id") == number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]
            if tab := self._tabs.get(got.get("sessionId", "")):
                tab.hear(got.get("method", ""), got.get("params", {}))


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context
        self.complaints: list[str] = []
        """What the console shows: errors, warnings, violations of the policy."""
        self.dialogs: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def hear(self, method: str, said: dict[str, Any]) -> None:
        """Note an event."""
        if method == "Page.javascriptDialogOpening":
            self.dialogs.append(said["message"])
            message = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self._browser._socket.send(json.dumps({**message, "sessionId": self._session}))
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(said["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))

    def goto(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def eval(self, script: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise RuntimeError(got["exceptionDetails"].get("exception", {}).get("description", script))
        return got["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        # An element is no value that could be returned.
        script = f"((found) => found instanceof Node ? true : found)({condition})"
        while not (found := self.eval(script)):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {condition}; complaints: {self.complaints}")
            time.sleep(0.02)
        return found

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys one after the other."""
        for key in keys:
            text = {"Enter": "\r", "/": "/"}.get(key)
            said = {"key": key, "windowsVirtualKeyCode": _CODES[key], "modifiers": 8 if shift else 0}
            self.call("Input.dispatchKeyEvent", type="keyDown", **said, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **said)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def look(self, *, width: int = 1280, height: int = 800, scale: float = 1, dark: bool = False) -> None:
        """Set the window's size and the user's colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self) -> bytes:
        """Return a PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)
