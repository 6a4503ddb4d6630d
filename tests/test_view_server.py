"""The server of `emsr view` gives the files of its folders, in parts too, and nothing else."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from emsr.viewing.server import Address, bundled_client, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A folder with files and links, and a secret beside it."""
    folder = tmp_path_factory.mktemp("served")
    root = folder / "root"
    (root / "c").mkdir(parents=True)
    (root / "c" / "0").write_bytes(b"0123456789")
    (root / "inside").symlink_to("c/0")
    (folder / "secret").write_text("secret")
    (folder / "root2").mkdir()
    (folder / "root2" / "secret").write_text("secret")
    (root / "outside").symlink_to("../secret")
    (root / "beside").symlink_to("../root2")
    (folder / "link").symlink_to("root")
    with serving({"a b": root, "link": folder / "link"}, bundled_client(), "127.0.0.1", 0) as address:
        yield address


def ask(address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[Any, bytes]:
    """A request whose path nobody tidies up."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    connection.request(method, f"{where.path}{path}", headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("path", "method", "ranges", "status", "body"),
    [
        ("/a%20b/c/0", "GET", None, 200, b"0123456789"),
        ("/a%20b/c/0", "HEAD", None, 200, b""),
        ("/a%20b/c/0", "OPTIONS", None, 204, b""),
        ("/a%20b/c/0", "GET", "bytes=2-4", 206, b"234"),
        ("/a%20b/c/0", "GET", "bytes=-3", 206, b"789"),
        ("/a%20b/c/0", "GET", "bytes=8-99", 206, b"89"),
        ("/a%20b/c/0", "GET", "bytes=10-11", 416, None),
        ("/a%20b/c/0", "POST", None, 405, None),
        ("/a%20b/c/0", "PUT", None, 405, None),
        ("/a%20b/inside", "GET", None, 200, b"0123456789"),
        ("/link/c/0", "GET", None, 200, b"0123456789"),
        ("/link/c/1", "GET", None, 404, None),
        ("/link/", "GET", None, 404, None),
        ("/link/c", "GET", None, 404, None),
        ("/link/outside", "GET", None, 404, None),
        ("/link/beside/secret", "GET", None, 404, None),
        ("/link/../secret", "GET", None, 404, None),
        ("/link/%2e%2e/secret", "GET", None, 404, None),
        ("/link/%2e%2e/root2/secret", "GET", None, 404, None),
        ("/link//etc/passwd", "GET", None, 404, None),
        ("/link/c/0%00", "GET", None, 404, None),
    ],
)
def test_server_gives_files_of_its_folders_and_nothing_else(
    served: Address, path: str, method: str, ranges: str | None, status: int, body: bytes | None
) -> None:
    answer, content = ask(served.data, path, method, {"Range": ranges} if ranges else {})
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert content == body if body is not None else b"secret" not in content
    if method == "HEAD":
        assert answer.headers["Content-Length"] == "10"
    if ranges == "bytes=2-4":
        assert answer.headers["Content-Range"] == "bytes 2-4/10"
        assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]


def test_server_wants_the_word_of_its_address_and_knows_what_a_browser_has(served: Address) -> None:
    for other in (served.data[:-1] + "_" * 2, served.data.partition("/data")[0]):
        answer, _ = ask(other, "/link/c/0")
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (404, "*")
    tag = ask(served.data, "/link/c/0")[0].headers["ETag"]
    assert ask(served.data, "/link/c/0", headers={"If-None-Match": tag})[0].status == 304
    assert b"neuroglancer" in ask(served.client, "")[1]
