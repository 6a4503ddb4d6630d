"""Precomputed volumes behind http and s3, from real servers on this machine that fail as servers do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
import tenacity
import yaml
from cloudfiles import interfaces, reset_connection_pools, secrets
from cloudvolume import CloudVolume
from moto.server import ThreadedMotoServer

from chunked import settings
from emsr.commands.check import check_config
from emsr.config import parse
from emsr.durable import read_json
from emsr.settings import Settings
from emsr.steps.data import ingest
from emsr.stores import open_source, precomputed
from emsr.stores.buckets import ENDPOINTS, address_of

SHAPE = (6, 30, 20)
VOLUME = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
CHUNK = "4_4_40/0-16_0-16_0-4"


def written(folder: Path) -> Path:
    layout = {"resolution": (4, 4, 40), "voxel_offset": (0, 0, 0), "volume_size": VOLUME.T.shape}
    info = CloudVolume.create_new_info(1, "image", "uint8", "raw", chunk_size=(16, 16, 4), mesh="mesh", **layout)
    volume = CloudVolume(f"file://{folder}", info=info, compress=False, progress=False)
    volume.commit_info()
    volume[:] = VOLUME.T[..., None]
    return folder


class Server(ThreadingHTTPServer):
    """Serves a folder; `faults` are what goes wrong with the next requests of a file, `seen` counts requests.

    `asked` counts those for headers alone; with `tags` every answer has an ETag.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), lambda *given: Handler(*given, directory=str(folder)))
        self.faults: dict[str, list[str]] = {}
        self.seen: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.tags = False
        self.address = f"precomputed://http://127.0.0.1:{self.server_port}/em"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/em/")
        self.server.seen[name] += 1
        faults = self.server.faults.get(name, [])
        fault = faults.pop(0) if len(faults) > 1 else faults[0] if faults else ""
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault.startswith("/"):
            self.send_response(302)
            self.send_header("Location", fault)
            self.end_headers()
        elif fault == "short":
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            time.sleep(1 if fault == "silence" else 0)
            super().do_GET()

    def do_HEAD(self) -> None:
        self.server.asked[self.path.removeprefix("/em/")] += 1
        super().do_HEAD()

    def end_headers(self) -> None:
        if self.server.tags and (path := Path(self.translate_path(self.path))).is_file():
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *given: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        """Clients that gave up are no news."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(interfaces.HttpInterface.get_file.retry, "wait", tenacity.wait_none())
    monkeypatch.setattr(precomputed, "SILENCE_S", 0.3)
    written(tmp_path / "www/em")
    with Server(tmp_path / "www") as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_a_volume_behind_http_is_ingested_like_its_folder(server, tmp_path, capsys):
    ingest(settings(server.address), tmp_path / "far/hr.json", workers=2)
    ingest(settings(str(tmp_path / "www/em")), tmp_path / "near/hr.json")
    far, near = (read_json(tmp_path / name / "hr.json") for name in ("far", "near"))
    assert far["source"].pop("path") == server.address
    assert near["source"].pop("path") == str(tmp_path / "www/em")
    assert far == near
    assert capsys.readouterr().out == ""


def test_a_chunk_that_shards_share_is_fetched_once_after_the_probe(server, tmp_path):
    ingest({**settings(server.address), "shard": [2, 8, 8], "chunk": [1, 8, 8]}, tmp_path / "hr.json")
    chunks = {name: count for name, count in server.seen.items() if name != "info"}
    assert len(chunks) == 8
    assert [name for name, count in chunks.items() if count > 1] == [CHUNK, "4_4_40/16-20_16-30_4-6"]
    assert max(chunks.values()) == 2


def test_finished_shards_are_not_fetched_again_unless_the_info_changed(server, tmp_path, caplog):
    failing, last, out = "4_4_40/16-20_16-30_0-4", "4_4_40/16-20_16-30_4-6", tmp_path / "hr.json"
    server.faults[failing] = ["404"]
    with pytest.raises(ValueError, match="is missing"):
        ingest(settings(server.address), out)
    fetched = set(server.seen) - {"info", failing, last, CHUNK}  # of the first and the last a voxel is asked for first
    assert len(fetched) == 2
    server.seen.clear()
    with pytest.raises(ValueError, match="is missing"):
        ingest(settings(server.address), out)
    assert set(server.seen) == {"info", failing, last, CHUNK}
    server.faults.clear()
    server.seen.clear()
    (tmp_path / "www/em/info").write_bytes((tmp_path / "www/em/info").read_bytes() + b"\n")
    ingest(settings(server.address), out)
    assert fetched < set(server.seen)
    assert "hr: source changed since a run that did not finish, so its 3 shards do not count" in caplog.text


def replaced(chunk: Path) -> None:
    chunk.write_bytes(bytes(255 - byte for byte in chunk.read_bytes()))


def replaced_at_the_same_time(chunk: Path) -> None:
    before = chunk.stat()
    replaced(chunk)
    os.utime(chunk, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("tags", [False, True], ids=["Last-Modified", "ETag"])
@pytest.mark.parametrize("change", [None, replaced, replaced_at_the_same_time])
def test_chunks_replaced_between_a_kill_and_the_resume_are_noticed(server, tmp_path, caplog, tags, change):
    failing, fetched, out = "4_4_40/16-20_16-30_0-4", "4_4_40/16-20_0-16_0-4", tmp_path / "hr.json"
    server.tags, server.faults[failing] = tags, ["404"]
    for file in (tmp_path / "www/em").rglob("*"):
        os.utime(file, (10**9, 10**9))
    with pytest.raises(ValueError, match="is missing"):
        ingest(settings(server.address), out)
    server.faults.clear()
    server.seen.clear()
    if change:
        change(tmp_path / "www/em" / fetched)
    ingest(settings(server.address), out)
    assert server.asked == dict.fromkeys(server.asked, 1), "each object that was read is asked for once, and not read"
    assert fetched in server.asked
    seen = tags or change is not replaced_at_the_same_time  # seconds and length are all that the server says without
    if change and seen:
        assert (
            "of 4 objects of the source, such as 4_4_40/16-20_0-16_0-4, changed since a run that did not" in caplog.text
        )
        ingest(settings(server.address), tmp_path / "whole/hr.json")
        assert read_json(out) == read_json(tmp_path / "whole/hr.json")
    else:
        assert "changed" not in caplog.text
        assert fetched not in server.seen, "finished shards are not fetched again"


FLEETING = [
    (["503", "500", ""], 3, "an overloaded server"),
    (["short", ""], 2, "a body shorter than announced"),
    (["silence", ""], 2, "a server that says nothing"),
    (["429", ""], 2, "too many requests"),
]


@pytest.mark.parametrize(("faults", "requests", "why"), FLEETING, ids=[why for *_, why in FLEETING])
@pytest.mark.parametrize("name", ["info", CHUNK])
def test_what_fails_for_a_moment_is_asked_for_again(server, name, faults, requests, why):
    server.faults[name] = list(faults)
    np.testing.assert_array_equal(open_source(server.address).read((0, 0, 0), SHAPE), VOLUME)
    assert server.seen[name] == requests


LASTING = [
    ("503", CHUNK, 7, "cannot be read .HTTPError: 503", "a broken server"),
    ("short", CHUNK, 7, "cannot be read .*IncompleteRead", "always half"),
    ("404", CHUNK, 1, "0-16_0-16_0-4 is missing inside the bounds", "a missing chunk"),
    ("403", CHUNK, 1, "or may not be read", "a chunk that is kept from us"),
    ("/em/gone?signature=hunter2", CHUNK, 1, "is missing inside the bounds", "a redirect to nothing"),
    ("503", "info", 7, "its info cannot be read .HTTPError: 503", "a broken server from the start"),
    ("404", "info", 1, "has no info, or it may not be read", "no volume"),
    ("/em/broken?signature=hunter2", "info", 7, "its info cannot be read", "a redirect with a secret"),
]


@pytest.mark.parametrize(("fault", "name", "requests", "reason", "why"), LASTING, ids=[why for *_, why in LASTING])
def test_what_fails_for_good_is_one_line_before_anything_is_written(
    server, tmp_path, fault, name, requests, reason, why
):
    server.faults |= {name: [fault], "broken?signature=hunter2": ["500"]}
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as refusal:
        ingest(settings(server.address), tmp_path / "out/hr.json")
    assert server.seen[name] == requests, "no more often than seven times"
    assert "\n" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_chunk_that_fails_for_good_amid_the_volume_leaves_no_card(server, tmp_path):
    server.faults["4_4_40/0-16_16-30_0-4"] = ["404"]
    with pytest.raises(ValueError, match="0-16_16-30_0-4 is missing"):
        ingest(settings(server.address), tmp_path / "out/hr.json", workers=2)
    assert not (tmp_path / "out/hr.json").exists()
    del server.faults["4_4_40/0-16_16-30_0-4"]
    ingest(settings(server.address), tmp_path / "out/hr.json", workers=2)
    assert (tmp_path / "out/hr.json").exists()


def test_a_config_may_name_an_address_and_its_info_decides_whether_it_changed(server, tmp_path):
    values = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    volume = {"hr": {"path": server.address, "mip": 0}, "degradation": {"kernel": "area"}}
    config = parse({**values, "volumes": {"far": volume}, "trainings": {}})
    check_config(config)
    chosen = Settings(config)
    assert chosen.source("far", "hr") == []
    before = json.loads(chosen.ingest("far", "hr"))
    file = tmp_path / "www/em/info"
    file.write_text(file.read_text().replace('"uint8"', '"uint16"'))
    after = json.loads(chosen.ingest("far", "hr"))
    assert before["source"].pop("fingerprint") != after["source"].pop("fingerprint")
    assert before == after


def test_only_what_lies_on_disk_is_linked(server, tmp_path):
    with pytest.raises(ValueError, match="cannot be linked, it is not on disk: leave link out"):
        ingest(settings(server.address, link=True), tmp_path / "out/hr.json")


# s3


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    serving = ThreadedMotoServer("127.0.0.1", 0)
    serving.start()
    host, port = serving.get_host_and_port()
    yield f"http://{host}:{port}"
    serving.stop()


@pytest.mark.parametrize("access", ["anonymous", "secrets", "environment"])
def test_a_volume_behind_s3_is_read_with_and_without_credentials(moto, tmp_path, monkeypatch, access):
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    for name in (*keys, "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    monkeypatch.setattr(secrets, "CLOUD_VOLUME_SECRETS_DIR", str(tmp_path))
    client = boto3.client("s3", "us-east-1", aws_access_key_id="me", aws_secret_access_key="hunter2")
    client.create_bucket(Bucket=access)
    folder = written(tmp_path / "em")
    for file in (file for file in folder.rglob("*") if file.is_file()):
        client.upload_file(str(file), access, f"lab/{file.relative_to(tmp_path)}", {"ACL": "public-read"})
    if access == "secrets":
        (tmp_path / "aws-secret.json").write_text(json.dumps(keys))
    if access == "environment":
        for name, value in {**keys, "AWS_SESSION_TOKEN": ""}.items():
            monkeypatch.setenv(name, value)
    try:
        source = open_source(f"precomputed://s3://{access}/lab/em")
        np.testing.assert_array_equal(source.read((1, 2, 3), SHAPE), VOLUME[1:, 2:, 3:])
        client.delete_object(Bucket=access, Key=f"lab/em/{CHUNK}")
        with pytest.raises(ValueError, match=f"s3://{access}/lab/em: .*0-16_0-16_0-4 is missing inside the bounds"):
            open_source(source.path).read((0, 0, 0), (4, 8, 8))
    finally:
        reset_connection_pools()


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("gs://lab/em/", "https://storage.googleapis.com/lab/em"),
        ("s3://lab/em", "https://s3.amazonaws.com/lab/em"),
        ("https://x.org/em", "https://x.org/em"),
    ],
)
def test_without_credentials_buckets_are_asked_as_anyone(tmp_path, monkeypatch, address, asked):
    monkeypatch.setattr(secrets, "CLOUD_VOLUME_SECRETS_DIR", str(tmp_path))
    for name in (
        "AWS_ACCESS_KEY_ID",
        "GOOGLE_APPLICATION_CREDENTIALS",
        *(name for names, _ in ENDPOINTS.values() for name in names),
    ):
        monkeypatch.delenv(name, raising=False)
    assert address_of(f"precomputed://{address}") == f"precomputed://{asked}"
    (tmp_path / "lab-google-secret.json").touch()
    assert address_of("precomputed://gs://lab/em") == "precomputed://gs://lab/em"


def test_half_of_the_credentials_in_the_environment_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "CLOUD_VOLUME_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    with pytest.raises(ValueError, match=r"AWS_SESSION_TOKEN is not set: .* export it, maybe empty"):
        open_source("precomputed://s3://bucket/em")
