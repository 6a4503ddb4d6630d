"""Security of volumes and of what is written, a test for each row of the threats (SECURITY.md).

Rows: HDF5 that is kept elsewhere, declared sizes and bombs, addresses, credentials, paths that leave the results, modes
of files. Each format's own cases are in test_bad_sources*.py, what servers do in test_stores_remote.py.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tenacity
from cloudfiles import interfaces, secrets

from bad_sources import RAW, SIZE, bare, edited, hdf, little_memory, ome, precomputed, settings
from emsr import places
from emsr.cli import main
from emsr.config import parse
from emsr.config_files import read
from emsr.models import checkpoint
from emsr.steps.data import ingest
from network_goldens import TINY, card
from project import ROOT

SECRET = b"hunter2hunter2hunter2hunter2"


def everything(folder: Path) -> bytes:
    """All bytes of all files below a folder, and their names."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return b"\n".join(str(file).encode() + file.read_bytes() for file in files)


# HDF5 that is kept elsewhere


def linked(file: h5py.File, secret: Path) -> None:
    file["volumes/raw"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/raw")


def behind(file: h5py.File, secret: Path) -> None:
    file["volumes"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/")  # its raw is raw of the other file


def stored(file: h5py.File, secret: Path) -> None:
    file.create_dataset("volumes/raw", (4, 7, 1), "u1", external=[(str(secret), 0, len(SECRET))])


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 7, 1), "u1")
    layout[...] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "raw", (4, 7, 1))
    file.create_virtual_dataset("volumes/raw", layout)


@pytest.mark.parametrize("keep", [linked, behind, stored, virtual], ids=lambda keep: keep.__name__)
def test_hdf5_reads_no_other_file(tmp_path: Path, keep: Callable[[h5py.File, Path], None]) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["raw"] = np.frombuffer(SECRET, np.uint8).reshape(4, 7, 1)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        keep(file, secret)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["volumes/raw"][...].tobytes() == SECRET, "h5py itself reads it"
    with pytest.raises(ValueError, match=r"link to the file|in other files|has no dataset"):
        ingest(settings(tmp_path / "x.h5", **RAW, **SIZE), tmp_path / "out/hr.json")
    assert not (tmp_path / "out").exists()


# declared sizes and bombs


def png(folder: Path) -> Path:
    """A folder of one PNG that says 65000 x 65000 pixels and has a row of them."""
    (folder / "f").mkdir()
    rows = zlib.compress(bytes(65001))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 65000, 65000, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    (folder / "f" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + made)
    return folder / "f"


def vast_hdf(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("volumes/raw", (2**14, 2**16, 2**16), "u1", chunks=(8, 64, 64))[0, 0, 0] = 1
    return folder / "x.h5"


def vast_chunks(folder: Path) -> Path:
    def widen(document: dict[str, Any]) -> None:
        document["shape"] = [2**11] * 3
        document["chunk_grid"]["configuration"]["chunk_shape"] = [2**11] * 3

    return edited(bare(folder, 3), "zarr.json", widen)


VAST = [
    ("PNG", png, SIZE, "declares 4225000000 bytes of voxels but stores"),
    ("HDF5", vast_hdf, RAW | SIZE, "17179869184 shards of"),
    ("zarr", vast_chunks, SIZE, "more than 2 GiB each|cannot be opened as zarr"),
    ("metadata", lambda p: edited(bare(p, 3), "zarr.json", lambda d: d.update(attributes={"x": "y" * 2**27})), SIZE,
     "is no metadata of an array"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "make", "stated", "words"), VAST, ids=[form for form, *_ in VAST])
def test_what_a_file_declares_is_not_allocated(
    tmp_path: Path, form: str, make: Callable[[Path], Path], stated: dict[str, Any], words: str
) -> None:
    path = make(tmp_path)
    with little_memory(2**29), pytest.raises(ValueError, match=words):
        ingest(settings(path, **stated), tmp_path / "out/hr.json")
    assert not (tmp_path / "out").exists()


# addresses


class Redirecting(BaseHTTPRequestHandler):
    """Sends whoever asks to `to`."""

    to = ""
    asked = 0

    def do_GET(self) -> None:
        Redirecting.asked += 1
        self.send_response(302)
        self.send_header("Location", self.to)
        self.end_headers()

    def log_message(self, *given: object) -> None:
        """Quiet."""


@pytest.fixture
def redirecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(interfaces.HttpInterface.get_file.retry, "wait", tenacity.wait_none())
    Redirecting.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"precomputed://http://127.0.0.1:{serving.server_port}/em"
        serving.shutdown()
        thread.join()


REDIRECTS = [
    ("http://169.254.169.254/latest/meta-data/iam", "redirects to this machine's own network"),
    ("http://2852039166/latest", "redirects to this machine's own network"),
    ("http://[::ffff:169.254.169.254]/latest", "redirects to this machine's own network"),
    ("http://metadata.google.internal/computeMetadata/v1/", "redirects to this machine's own network"),
    ("file:///etc/hostname", "No connection adapters were found"),
    ("/em/info", "TooManyRedirects"),
]


@pytest.mark.parametrize(("to", "words"), REDIRECTS, ids=[to for to, _ in REDIRECTS])
def test_a_server_leads_nowhere_else(redirecting: str, tmp_path: Path, to: str, words: str) -> None:
    Redirecting.to = to
    with pytest.raises(ValueError, match=words) as refusal:
        ingest(settings(redirecting), tmp_path / "out/hr.json")
    assert str(refusal.value).isprintable()
    assert Redirecting.asked <= 7 * 31
    assert not (tmp_path / "out").exists()


def test_an_info_leads_nowhere_else(tmp_path: Path) -> None:
    path = edited(precomputed(tmp_path), "info", lambda info: info.update(redirect="file:///etc"))
    with pytest.raises(ValueError, match="its info redirects elsewhere: name that place instead"):
        ingest(settings(path), tmp_path / "out/hr.json")


ADDRESSES = [
    ("precomputed://ftp://x.org/em", "scheme 'ftp' is unknown"),
    ("precomputed://javascript://x.org/em", "scheme 'javascript' is unknown"),
    ("graphene://https://x.org/em", "graphene is unverified"),
    ("https://x.org/em", "is of no format that is read over the network"),
    ("precomputed://http://169.254.169.254/latest", "lies in this machine's own network"),
    ("precomputed://http://metadata.google.internal./x", "lies in this machine's own network"),
    ("precomputed://https://0xa9fea9fe/x", "lies in this machine's own network"),
    ("precomputed://http://[fe80::1]:80/x", "lies in this machine's own network"),
    ("precomputed://http://[fd00:ec2::254]/x", "lies in this machine's own network"),
    ("precomputed://http://[nothing/x", "cannot be understood .Invalid IPv6 URL.: correct it"),
]


@pytest.mark.parametrize(("address", "words"), ADDRESSES, ids=[address for address, _ in ADDRESSES])
def test_addresses_that_are_not_read(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        places.check_address(address)


@pytest.mark.parametrize("host", ["x.org", "127.0.0.1:8080", "10.1.2.3", "[::1]:80", "em.169.254.x.org"])
def test_servers_of_a_lab_are_read(host: str) -> None:
    places.check_address(f"precomputed://http://{host}/em")


# credentials

LOGINS = [
    "precomputed://https://me:hunter2@x.org/em",
    "precomputed://https://me:hun?ter2hunter2@x.org/em",
    "precomputed://https://me:hun#ter2hunter2@x.org/em",
    "precomputed://s3://hunter2:hunter2@bucket/em",
    "precomputed://https://x.org/em?X-Amz-Signature=hunter2",
    "precomputed://https://x.org/em#hunter2",
    "s3://me:hunter2@bucket/em",
]


@pytest.mark.parametrize("address", LOGINS)
def test_a_login_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    values = {**read(ROOT / "config.yaml"), "volumes": {"far": {"lr": {"path": address}}}, "trainings": {}}
    with pytest.raises(ValueError, match="address") as refusal:
        parse(values)
    for part in ("hunter2", "me:", "hun"):
        assert part not in str(refusal.value)


@pytest.mark.parametrize("words", [[], ["--traceback"]], ids=["a line", "a traceback"])
def test_credentials_are_in_no_output(
    redirecting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    """A secret in the environment, in files of cloud-volume and in what a server answers; a run that ends well."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "SLURM_JWT", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hunter2")
    monkeypatch.setattr(secrets, "CLOUD_VOLUME_SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "http-secret.json").write_text('{"user": "me", "password": "hunter2"}')
    Redirecting.to = "http://me:hunter2@127.0.0.1:9/em/info?X-Amz-Signature=hunter2"
    out, log = tmp_path / "out", tmp_path / "out" / "log.txt"
    called = ["ingest", json.dumps(settings(redirecting)), str(out / "far.json"), "--log", str(log), *words]
    if words:
        with pytest.raises(ValueError, match="its info cannot be read"):
            main(called)
    else:
        assert main(called) == 1
    good = settings(hdf(tmp_path), **RAW)
    assert main(["ingest", json.dumps(good), str(out / "near.json"), "--log", str(log)]) == 0
    said = capfd.readouterr()
    assert words or "its info cannot be read" in said.err
    assert (out / "near.json").is_file()
    assert b"hunter2" not in everything(out)
    assert "hunter2" not in said.out + said.err


# paths that leave the results


def test_metadata_of_others_name_nothing_outside_their_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    bare(tmp_path / "secret", 3)
    for level in ("../secret/x.zarr", f"{tmp_path}/secret/x.zarr"):
        folder = tmp_path / str(len(level))
        folder.mkdir()
        outside = edited(
            ome(folder, "0.5"),
            "zarr.json",
            lambda d, level=level: d["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(path=level),
        )
        with pytest.raises(ValueError, match="lies outside: mend the OME"):
            ingest(settings(outside), tmp_path / "out/hr.json")
    for key in ("../secret", "/secret", "a/../../secret"):
        folder = tmp_path / key.replace("/", "_")
        folder.mkdir()
        path = edited(precomputed(folder), "info", lambda d, key=key: d["scales"][0].update(key=key))
        with pytest.raises(ValueError, match="states no key below the folder"):
            ingest(settings(path), tmp_path / "out/hr.json")
    assert not (tmp_path / "out").exists()


# modes of files


MODES = [(0o027, 0o640, 0o750), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]


@pytest.mark.parametrize(("mask", "file", "folder"), MODES)
def test_files_have_the_modes_that_the_user_asks_for(tmp_path: Path, mask: int, file: int, folder: int) -> None:
    source, before = hdf(tmp_path), os.umask(mask)
    try:
        log = tmp_path / "out" / "logs" / "x.log"
        words = [json.dumps(settings(source, **RAW)), str(tmp_path / "out/hr.json"), "--log", str(log)]
        assert main(["ingest", *words]) == 0
        about = card("gpemsr", "flow", 8, TINY)
        checkpoint.save(tmp_path / "out/w/flow.safetensors", checkpoint.network(about).state_dict(), about)
    finally:
        os.umask(before)
    made = [one for one in (tmp_path / "out").rglob("*") if not one.is_symlink()]
    assert len(made) > 8
    assert {stat.S_IMODE(one.stat().st_mode) for one in made if one.is_file()} == {file}
    assert {stat.S_IMODE(one.stat().st_mode) for one in made if one.is_dir()} == {folder}
