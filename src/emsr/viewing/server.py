"""A server of files that are only read: byte ranges, CORS, nothing outside the served folders.

Tornado serves: its handler of static files knows byte ranges, conditional requests and HEAD, and neuroglancer brings
it; the standard library's server knows no ranges. All runs in one loop in a thread of its own, and files leave in
pieces, so that no request waits for another to end. Addresses hold a random word: other users of the machine, and other
pages in the browser, cannot guess them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

log = logging.getLogger(__name__)

HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Private-Network": "true",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Address:
    """Where a server listens: `client` is neuroglancer's page, and the folder NAME lies at `data`/NAME."""

    client: str
    data: str


class Readable(RequestHandler):
    """What pages of other origins may read."""

    def set_default_headers(self) -> None:
        """Headers of every answer, also of errors: a browser cannot read the status of a 404 without CORS."""
        for name, value in HEADERS.items():
            self.set_header(name, value)


class Nothing(Readable):
    """404 for every other address; neuroglancer asks for attributes of N5 also above the folder that is served."""

    def prepare(self) -> None:
        """Answer before the method matters."""
        raise HTTPError(404)


class Files(Readable, StaticFileHandler):
    """The files of one folder; 404 for what is none, or lies outside once links are resolved."""

    def options(self, path: str) -> None:
        """Answer what a browser asks before it reads across origins."""
        self.set_status(204)

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """The path that is asked for; whether it leads outside is seen when its links are resolved."""
        return os.path.join(root, path)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """The file that a path means; HTTPError 404 where there is none, 403 where it may not be read."""
        try:
            file, folder = os.path.realpath(absolute_path), os.path.realpath(root)
        except ValueError:  # a NUL in the path
            raise HTTPError(404) from None
        if file == folder and self.default_filename:
            file = os.path.join(file, self.default_filename)
        if os.path.commonpath([file, folder]) != folder or not os.path.isfile(file):
            raise HTTPError(404)
        if not os.access(file, os.R_OK):
            raise HTTPError(403)
        return file

    def compute_etag(self) -> str:
        """Size and time of the file: a hash of its content, tornado's choice, would read whole shards."""
        return f'"{self.get_content_size():x}-{os.stat(self.absolute_path or "").st_mtime_ns:x}"'


class Events(RequestHandler):
    """What neuroglancer's bundled page listens to and shows as lost when it ends: a stream without events."""

    def initialize(self) -> None:
        """Nothing has ended it yet."""
        self.closed = asyncio.Event()

    async def get(self) -> None:
        """Keep the stream open until the page is closed."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        await self.flush()
        await self.closed.wait()

    def on_connection_close(self) -> None:
        """End the answer."""
        self.closed.set()


@contextmanager
def serving(folders: Mapping[str, Path], client: Path | None, host: str, port: int) -> Iterator[Address]:
    """Serve folders by name, and a page of neuroglancer from the folder `client`, until the block ends; port 0: any.

    OSError, in one line, where it cannot listen there.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen at {host} port {port} ({error}): choose another --port or --host") from None
    word = secrets.token_urlsafe(16)
    routes: list[Any] = [
        (f"/data/{word}/{quote(name, safe='')}/(.*)", Files, {"path": str(folder)}) for name, folder in folders.items()
    ]
    if client:
        routes.append((f"/v/{word}/(.*)", Files, {"path": str(client), "default_filename": "index.html"}))
        routes.append((f"/events/{word}", Events))
    application = Application(routes, default_handler_class=Nothing, log_function=_log)
    start = f"http://{_shown(host)}:{listener.getsockname()[1]}"
    with _running(application, listener):
        yield Address(f"{start}/v/{word}/", f"{start}/data/{word}")


def bundled_client() -> Path:
    """The folder of the page that the package neuroglancer brings; FileNotFoundError where it has none."""
    spec = importlib.util.find_spec("neuroglancer")  # found and not imported: only its files are wanted
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (Path(place) / "static" / "client" / "index.html").is_file():
            return Path(place) / "static" / "client"
    raise FileNotFoundError("the package neuroglancer has no page in it: install its wheel, or state --client URL")


@contextmanager
def _running(application: Application, listener: socket.socket) -> Iterator[None]:
    """Run an application in a thread; it ends, and its connections with it, when the block does."""
    listener.setblocking(False)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        server = HTTPServer(application)
        server.add_socket(listener)
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=_run, args=(loop, run()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    """Run a loop of its own to its end."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _shown(host: str) -> str:
    """The name of a host in an address: that of this machine where all of its interfaces are listened at."""
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _log(handler: RequestHandler) -> None:
    """Requests are for the log file: neuroglancer asks for much that need not exist."""
    log.info("%d %s %s", handler.get_status(), handler.request.method, handler.request.uri)
