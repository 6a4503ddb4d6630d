"""Whichever request to a server fails, and however: asked again, or one line and then the same bytes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity
from cloudfiles import interfaces

from chunked import settings
from emsr.steps.data import ingest
from emsr.stores import precomputed
from faulted import content
from test_stores_remote import Server, written


class Failing(Server):
    """From the n-th request on `faults` are what goes wrong, one a request; the last one stays."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.script(0, [""])

    def script(self, at: int, faults: list[str]) -> None:
        self.at, self.requests, self.left = at, 0, list(faults)
        self.counting = threading.Lock()
        self.seen.clear()

    @property
    def faults(self) -> dict[str, list[str]]:  # type: ignore[override]
        """Asked for once a request, whatever its file."""
        with self.counting:
            self.requests += 1
            if not self.at or self.requests < self.at:
                return {}
            fault = self.left.pop(0) if len(self.left) > 1 else self.left[0]
            return {name: [fault] for name in list(self.seen)}

    @faults.setter
    def faults(self, given: dict[str, list[str]]) -> None:
        """Nothing: `script` says what fails."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("www")
    written(folder / "em")
    with Failing(folder) as serving, pytest.MonkeyPatch.context() as patch:
        patch.setattr(interfaces.HttpInterface.get_file.retry, "wait", tenacity.wait_none())
        patch.setattr(precomputed, "SILENCE_S", 0.3)
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def whole(server: Failing, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    ingest(settings(server.address), folder / "hr.json")
    return content(folder)


FLEETING = [["503", ""], ["500", "429", ""], ["short", ""], ["silence", ""]]


@pytest.mark.parametrize("faults", FLEETING, ids=["-".join(filter(None, faults)) for faults in FLEETING])
def test_what_fails_for_a_moment_at_any_request_changes_nothing(
    server: Failing, whole: dict[str, bytes], tmp_path: Path, faults: list[str]
) -> None:
    for at in itertools.count(1, 3 if faults[0] == "silence" else 2):
        server.script(at, faults)
        ingest(settings(server.address), tmp_path / f"{at}/hr.json")
        if server.requests < at:
            break
        assert content(tmp_path / str(at)) == whole, at
    assert at > 5


@pytest.mark.parametrize("fault", ["503", "404", "short"])
def test_what_fails_for_good_from_any_request_on_is_one_line_and_then_the_same(
    server: Failing, whole: dict[str, bytes], tmp_path: Path, fault: str
) -> None:
    for at in itertools.count(1, 2):
        out = tmp_path / f"{at}/hr.json"
        server.script(at, [fault])
        try:
            ingest(settings(server.address), out)
        except (ValueError, OSError) as error:
            line = str(error)
        else:
            break
        assert "\n" not in line
        assert not out.exists(), at
        journal = out.with_suffix(".unfinished")
        lines = journal.read_text().splitlines() if journal.is_file() else []
        noted = sum(line.startswith("[") for line in lines)  # the others are what shards are made of
        server.script(0, [""])
        ingest(settings(server.address), out)
        chunks = [name for name in server.seen if name != "info"]
        assert len(chunks) <= 8 - noted + 2, "finished shards are not fetched again, but for the probe of two"
        assert content(out.parent) == whole, at
    assert at > 5
