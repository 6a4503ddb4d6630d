"""`emsr view`: look at results in neuroglancer."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from emsr import plugins

log = logging.getLogger(__name__)


def view(
    places: list[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    layout: str = "4panel",
    client: str | None = None,
    no_browser: bool = False,
    screenshot: Path | None = None,
    chromium: Path | None = None,
) -> None:
    """Serve a volume and open it in neuroglancer; prints the address, and serves until Ctrl+C or SIGTERM.

    PLACES are RESULTS/VOLUME (its lr, bicubic, sr, hr, labels and segments), cards (sr.json), or folders of OME-Zarr,
    neuroglancer's precomputed or N5, such as `emsr export` writes. Files are only read, and reached with the printed
    address alone, from this machine unless `--host` says otherwise; `--port` 0 takes a free one. `--layout` is 4panel
    or xy. The page comes from the package neuroglancer, and nothing from the network; `--client URL` takes another. It
    is opened in a browser where there is a desktop, unless `--no-browser`. `--screenshot OUT.png` draws without a
    window and ends: for it `--chromium PATH`, or a Chromium on PATH, is started.
    """
    from emsr.durable import write_bytes
    from emsr.viewing.browser import find_chromium, picture
    from emsr.viewing.layers import layers_of
    from emsr.viewing.server import bundled_client, serving
    from emsr.viewing.state import LAYOUTS, fragment, viewer_state

    if not 0 <= port < 2**16:
        raise ValueError(f"port {port} does not exist: state 1 to 65535, or 0 for a free one")
    if layout not in LAYOUTS:
        raise ValueError(plugins.unknown("layout", layout, LAYOUTS))
    if client and not client.startswith(("http://", "https://")):
        raise ValueError(f"client {client!a} is no address of a page: write https://...")
    if screenshot and screenshot.suffix != ".png":
        raise ValueError(f"{screenshot} does not end in .png, which is what is written: name it so")
    program = find_chromium(chromium) if screenshot else None
    layers = layers_of(places)
    for layer in layers:
        if layer.caution:
            log.warning("%s: %s", layer.name, layer.caution)
    page = None if client else bundled_client()
    ended = nullcontext() if screenshot else _until_ended()
    with ended, serving({one.name: one.root for one in layers}, page, host, port) as address:
        url = (client or address.client).partition("#")[0] + fragment(viewer_state(layers, address.data, layout))
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        if screenshot and program:
            write_bytes(screenshot, picture(url, program))
            return
        if not no_browser and _desktop():
            webbrowser.open(url)
        threading.Event().wait()


@contextmanager
def _until_ended() -> Iterator[None]:
    """A block that Ctrl+C or SIGTERM ends, at any place in it; says so."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.stdout.write("stopped\n")
    finally:
        signal.signal(signal.SIGTERM, before)


def _desktop() -> bool:
    """Whether a browser would have a window: elsewhere one of text might take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
