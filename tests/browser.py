"""A real browser for tests: Chromium without a window, spoken to by its DevTools protocol.

It collects what a page must not do (errors in the console, requests to anywhere, dialogs), types and clicks as a
person does, and answers questions by JavaScript. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.patience import patient

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE: Final = patient(60)
"""Seconds for anything to come true: a busy machine is slow, and nothing here is measured."""

_KEYS: Final = {
    "ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Enter": 13, " ": 32, "Escape": 27,
}  # fmt: skip


def need_chromium() -> str:
    """Path of a browser; the test is skipped where there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("no Chromium on this machine: apt-get install chromium")


class Browser:
    """One page of a running browser: opened once, asked and used after that."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listener = asyncio.create_task(self._listen())
        self.complaints: list[str] = []
        """Errors and warnings of the console, exceptions, dialogs."""
        self.requests: list[str] = []
        """Addresses that were asked for, without data URIs."""

    async def _listen(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                future = self._answers.pop(said["id"], None)
                if future is not None and not future.done():
                    future.set_result(said)
                continue
            about, what = said.get("method", ""), said.get("params", {})
            if about == "Network.requestWillBeSent" and not what["request"]["url"].startswith("data:"):
                self.requests.append(what["request"]["url"])
            elif about == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(what["exceptionDetails"]))
            elif about == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(what["args"]))
            elif about == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                self.complaints.append(json.dumps(what["entry"]))
            elif about == "Page.javascriptDialogOpening":
                self.complaints.append(f"a dialog opened: {what['message']}")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its answer."""
        self._number += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = future
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, PATIENCE)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of this size and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await self.call(f"{domain}.enable")
        await self.resize(width, height)
        scheme = "dark" if dark else "light"
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self.call("Emulation.setEmulatedMedia", features=features)
        await self.call("Page.navigate", url=page.resolve().as_uri())
        await self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    async def resize(self, width: int, height: int) -> None:
        """Another size of the window, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            screenWidth=width,
            screenHeight=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not await self.ask(expression):
            assert time.monotonic() < deadline, f"this never became true: {expression}"
            await asyncio.sleep(0.05)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        extra = {} if text is None else {"text": text}
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key],
                  "modifiers": 8 if shift else 0}  # fmt: skip
        await self.call("Input.dispatchKeyEvent", type="keyDown", **common, **extra)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def click(self, selector: str) -> None:
        """Scroll to an element and click into its middle, as a person does."""
        box = await self.ask(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = found.getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def close(self) -> None:
        """Stop listening."""
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener


@contextlib.contextmanager
def running_chromium(folder: Path) -> Iterator[int]:
    """A browser with its profile in a folder: the port to speak to it. It is gone afterwards."""
    path = need_chromium()
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [
            path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--mute-audio",
            "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield _port(folder / "DevToolsActivePort", process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def new_page(port: int) -> AsyncIterator[Browser]:
    """An empty page of a running browser, closed afterwards."""
    address = f"http://127.0.0.1:{port}/json"
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{address}/new?about:blank") as answer:
            made = await answer.json()
        async with session.ws_connect(made["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            browser = Browser(socket)
            try:
                yield browser
            finally:
                await browser.close()
        async with session.get(f"{address}/close/{made['id']}") as answer:
            await answer.read()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])
        assert process.poll() is None, f"the browser ended with {process.returncode} before it could be spoken to"
        assert time.monotonic() < deadline, "the browser did not say where it can be spoken to"
        time.sleep(0.1)
