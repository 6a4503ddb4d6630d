"""Precomputed volumes behind gs, from an emulator of Google's storage on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from cloudfiles import reset_connection_pools, secrets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from chunked import VOLUME, precomputed, settings
from emsr.durable import read_json
from emsr.steps.data import ingest
from emsr.stores import open_source
from emsr.stores.buckets import address_of

CHUNK = "4_5_40/5-21_6-22_7-11"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    serving = create_server("127.0.0.1", 0, in_memory=True)
    serving.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{serving._api._httpd.server_port}")
    yield
    reset_connection_pools()
    serving.stop()


class Tokens(BaseHTTPRequestHandler):
    """Gives a token to whoever asks."""

    asked: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        Tokens.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        content = json.dumps({"access_token": "hunter2", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given: object) -> None:
        """Quiet."""


@pytest.fixture
def account(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The secret of a service account, whose tokens a server on this machine gives."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    with HTTPServer(("127.0.0.1", 0), Tokens) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield {
            **{"type": "service_account", "project_id": "lab", "client_email": "em@lab.test", "private_key_id": "1"},
            "private_key": key.private_bytes(*form).decode(),
            "token_uri": f"http://127.0.0.1:{serving.server_port}/token",
        }
        serving.shutdown()
        thread.join()


def uploaded(folder: Path, bucket: str) -> storage.Bucket:
    """A volume on disk and, below lab/em, in a bucket."""
    made = storage.Client(project="lab", credentials=AnonymousCredentials()).create_bucket(bucket)
    for file in precomputed(folder).rglob("*"):
        if file.is_file():
            made.blob(f"lab/em/{file.relative_to(folder)}").upload_from_filename(str(file))
    return made


@pytest.mark.parametrize("access", ["anonymous", "secrets", "environment"])
def test_a_volume_behind_gs_is_ingested_like_its_folder(emulator, account, tmp_path, monkeypatch, access):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(secrets, "CLOUD_VOLUME_SECRETS_DIR", str(tmp_path / "secrets"))
    bucket, address = uploaded(tmp_path / "em", access), f"precomputed://gs://{access}/lab/em"
    if access == "secrets":
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/google-secret.json").write_text(json.dumps(account))
    if access == "environment":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    Tokens.asked.clear()
    assert address_of(address).startswith("precomputed://http://" if access == "anonymous" else "precomputed://gs://")
    ingest(settings(address), tmp_path / "far/hr.json", workers=2)
    ingest(settings(tmp_path / "em"), tmp_path / "near/hr.json")
    far, near = (read_json(tmp_path / name / "hr.json") for name in ("far", "near"))
    assert far.pop("source")["path"] == address
    assert near.pop("source")["path"] == str(tmp_path / "em")
    assert far == near
    np.testing.assert_array_equal(open_source(address).read((1, 2, 3), VOLUME.shape), VOLUME[1:, 2:, 3:])
    assert bool(Tokens.asked) == (access == "secrets")
    bucket.delete_blob(f"lab/em/{CHUNK}")
    with pytest.raises(ValueError, match=f"gs://{access}/lab/em: .*5-21_6-22_7-11 is missing inside the bounds"):
        open_source(address).read((0, 0, 0), (4, 8, 8))
    with pytest.raises(FileNotFoundError, match="has no info, or it may not be read: correct the address"):
        open_source(f"precomputed://gs://{access}/lab/none")
