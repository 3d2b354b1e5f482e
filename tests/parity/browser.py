"""A headless Chromium driven over the DevTools protocol through two pipes: no driver, no port, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """Where Chromium is: ``CHROMIUM``, or the first of the usual names on the path; nowhere without POSIX, which hands over pipes."""
    if os.name != "posix":
        return None
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One open page. ``events`` holds everything the browser reported, in order."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer = send, receive, b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", None, url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", None, targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and waits for its answer."""
        return self._call(method, self._session, **parameters)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a file at exactly this width, in light or dark, and waits until it has loaded."""
        self.events.clear()
        narrow = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read(None)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def screenshot(self, whole: bool = False) -> bytes:
        """A PNG file of what is seen, or of the whole page."""
        options: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"])

    def press(self, key: str) -> None:
        """Presses and releases a key such as ``Enter`` on what has the focus."""
        text = {"Enter": "\r"}.get(key, "")
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, windowsVirtualKeyCode=13)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=13)

    def _call(self, method: str, session: str | None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        return self._read(self._number)

    def _read(self, number: int | None, seconds: float = 60) -> dict[str, Any]:
        """Reads until the answer of this number (None: until one event), keeping events."""
        end = time.monotonic() + seconds
        while True:
            while b"\0" not in self._buffer:
                if not select.select([self._receive], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise TimeoutError(f"Chromium gave no answer within {seconds} s")
                piece = os.read(self._receive, 1 << 16)
                if not piece:
                    raise RuntimeError("Chromium has ended")
                self._buffer += piece
            text, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(text)
            if "method" in message:
                self.events.append(message)
                if number is None:
                    return message
            elif message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(str(message["error"]))
                return message["result"]


@contextmanager
def page(executable: str, profile: Path) -> Iterator[Page]:
    """Starts Chromium with an empty profile and gives a page; ends it afterwards."""
    import fcntl

    pipes = [tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 100) for end in os.pipe()) for _ in range(2)]
    (its_input, our_output), (our_input, its_output) = pipes

    def hand_over() -> None:
        os.dup2(its_input, 3)
        os.dup2(its_output, 4)

    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        "--no-first-run",
        "--disable-extensions",
    ]
    options += ["--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [executable, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=hand_over,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        yield Page(our_output, our_input)
    finally:
        os.close(our_output)
        os.close(our_input)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
