"""A picture of a page of neuroglancer from a Chromium without a window, once all that is visible is drawn.

Chromium is led through its DevTools protocol: JSON over a websocket, for which tornado has the client. Neuroglancer
says by itself when it is ready, `viewer.isReady()`: all layers have their sources and all visible chunks are drawn.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZE = {"width": 1600, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
PATIENCE_S = 120
PAUSE_S = 0.2
# ready twice, with a turn of the page's own work between: layers may still be about to be registered
READY = """(async () => {
  const ready = () => window.viewer?.layerManager.managedLayers.length > 0 && window.viewer.isReady();
  if (!ready()) return false;
  await new Promise((resolve) => setTimeout(resolve, 100));
  if (!ready()) return false;
  window.viewer.display.draw();
  return true;
})()"""
TROUBLE = """(window.viewer?.layerManager.managedLayers ?? []).flatMap((managed) =>
  (managed.layer?.dataSources ?? []).map((source) => source.loadState?.error).filter(Boolean)
    .map((error) => `${managed.name}: ${error.message}`)).join("; ")"""


def find_chromium(stated: Path | None) -> Path:
    """The Chromium that is stated, else one on PATH; FileNotFoundError, in one line, where there is none."""
    found = shutil.which(str(stated)) if stated else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        what = f"{stated} is no program" if stated else f"no {' or '.join(NAMES[:3])} on PATH"
        raise FileNotFoundError(f"{what}: install chromium (Debian: make chromium), or state --chromium PATH")
    return Path(found)


def picture(url: str, chromium: Path, patience_s: float = PATIENCE_S) -> bytes:
    """A PNG of 1600 x 1000 pixels of neuroglancer at `url`, when its visible data are drawn.

    OSError, in one line, where Chromium ends, a layer cannot be opened, or data do not come within `patience_s`.
    """
    with TemporaryDirectory(prefix="emsr-view-", ignore_cleanup_errors=True) as folder:
        profile = Path(folder)
        with _running(chromium, profile, url) as process:
            return asyncio.run(_picture(process, profile, patience_s))


@contextmanager
def _running(chromium: Path, profile: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Chromium with a profile of its own that opens `url`; it and its children end with the block, or by SIGTERM."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root otherwise
    command = [str(chromium), *FLAGS, *sandbox, f"--user-data-dir={profile}", url]
    with (profile / "stderr").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        process.wait()


async def _picture(process: subprocess.Popen[bytes], profile: Path, patience_s: float) -> bytes:
    """Connect, wait until neuroglancer is ready, take the picture."""
    page: WebSocketClientConnection | None = None
    try:
        async with asyncio.timeout(patience_s):
            page = await _page(process, profile)
            await _call(page, "Emulation.setDeviceMetricsOverride", **SIZE)
            while not await _evaluate(page, READY):
                if trouble := await _evaluate(page, TROUBLE):
                    raise OSError(f"neuroglancer cannot show {' '.join(trouble.split())}")
                await asyncio.sleep(PAUSE_S)
            shot = await _call(page, "Page.captureScreenshot", format="png")
            return base64.b64decode(shot["data"])
    except TimeoutError:
        reason = "chunks are missing, or the machine is slow" if page else "Chromium does not answer"
        raise OSError(f"neuroglancer drew no whole picture in {patience_s:g} s: {reason}") from None
    finally:
        if page:
            page.close()


async def _page(process: subprocess.Popen[bytes], profile: Path) -> WebSocketClientConnection:
    """A connection to the page that Chromium opened; OSError, with the last that it said, where it has ended."""
    port = profile / "DevToolsActivePort"
    while not (port.is_file() and port.read_text().strip()):
        if process.poll() is not None:
            lines = (profile / "stderr").read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise OSError(f"Chromium ended with status {process.returncode} and said: {last.strip()}")
        await asyncio.sleep(PAUSE_S)
    address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
    while True:
        targets = json.loads((await AsyncHTTPClient().fetch(address)).body)
        for target in targets:
            if target["type"] == "page":
                return await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=2**27)
        await asyncio.sleep(PAUSE_S)


async def _evaluate(page: WebSocketClientConnection, expression: str) -> Any:
    """The value of an expression in the page; None while there is none."""
    answer = await _call(page, "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
    return answer.get("result", {}).get("value")


async def _call(page: WebSocketClientConnection, method: str, **parameters: Any) -> dict[str, Any]:
    """The result of one call of the DevTools protocol; calls come one after another, and events are passed over."""
    await page.write_message(json.dumps({"id": 1, "method": method, "params": parameters}))
    while True:
        message = await page.read_message()
        if message is None:
            raise OSError("Chromium closed the page before neuroglancer was ready")
        answer = json.loads(message)
        if "id" in answer:
            result: dict[str, Any] = answer.get("result", {})
            return result
