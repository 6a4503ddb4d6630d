"""`emsr view`: layers at their places, and a real browser that draws them."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import tensorstore as ts
import tifffile
from PIL import Image
from skimage.feature import match_template

from emsr import cli
from emsr.commands.export import export
from emsr.commands.view import view
from emsr.durable import read_json, write_json
from emsr.stores import open_source
from emsr.stores.card import write_card
from emsr.stores.link import write_link
from emsr.stores.ome import Layout, group_document
from emsr.stores.sections import section_sha256
from emsr.stores.zarr import create, open_array, write_box
from emsr.viewing.browser import NAMES, find_chromium, picture
from emsr.viewing.layers import Layer, layers_of
from emsr.viewing.server import bundled_client, serving
from emsr.viewing.state import FITS, fragment, viewer_state

Z, Y, X = SHAPE = (6, 64, 96)
FINE = Layout(SHAPE, "uint8", (6, 64, 96), (2, 32, 32), (30.0, 4.0, 4.0), (-45.0, 402.0, 82.0))
CORNER = (-60.0, 400.0, 80.0)  # voxels -2, 100, 20
PLACE = {"voxel_size_nm": [30.0, 4.0, 4.0], "translation_nm": [-45.0, 402.0, 82.0]}
SEGMENTS = "segmentations/sr/segments.json"
EXPORTED = {
    "image": ("sr.json", "precomputed", False),
    "ids": (SEGMENTS, "precomputed", True),
    "v2.zarr": ("sr.json", "ome-zarr-0.4", False),
    "image.n5": ("sr.json", "n5", False),
}
has_chromium = any(map(shutil.which, NAMES))


def blocks() -> np.ndarray:
    """Blocks of 8 x 8 voxels that look like nothing else on the screen, others in each section."""
    return np.random.default_rng(1).integers(0, 256, (Z, Y // 8, X // 8)).repeat(8, 1).repeat(8, 2).astype(np.uint8)


def write(card: Path, laid: Layout, values: np.ndarray) -> None:
    """A card and its array beside it, of one shard."""
    array = card.with_suffix(".zarr")
    create(array, laid)
    write_box(open_array(array, write=True), (0, 0, 0), values)
    place = {"voxel_size_nm": list(laid.voxel_size_nm), "translation_nm": list(laid.translation_nm)}
    kept = {
        "shape": list(laid.shape),
        "dtype": laid.dtype,
        "array": array.name,
        "section_sha256": section_sha256(array, 1),
    }
    write_card(
        card, {**kept, **place, "source": {}, **dict.fromkeys(("degradation", "hr_shape", "damaged", "missing"))}
    )


def masked(folder: Path) -> None:
    """OME-Zarr of bool."""
    write_json(folder / "zarr.json", group_document(FINE, "mask"))
    kvstore = {"driver": "file", "path": f"{folder}/0/"}
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": {"shape": SHAPE, "data_type": "bool"}}
    ts.open(spec, create=True).result().write(blocks() > 127).result()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume as a run leaves it: sr.zarr is a link; lr is twice coarser; a segmentation, and its affinities' card."""
    volume = tmp_path_factory.mktemp("results") / "cells"
    write(volume / "sr.json", FINE, blocks())
    (volume / "sr.zarr").rename(volume / "sr-0123.zarr")
    (volume / "sr.zarr").symlink_to("sr-0123.zarr")
    coarse = FINE.coarser(2)
    coarse = replace(coarse, shard=(6, 32, 64), levels=1)
    write(volume / "lr_x2.json", coarse, blocks()[:, ::2, ::2])
    ids = replace(FINE, dtype="uint64")
    write(volume / SEGMENTS, ids, np.where(blocks() > 127, blocks(), 0).astype("uint64"))
    write_json(volume / "segmentations" / "sr" / "affinities.json", {})
    for name, (image, format, sharded) in EXPORTED.items():
        export(volume / image, volume.parent / "out" / name, format=format, sharded=sharded)
    return volume


def test_layers_of_a_volume(results: Path) -> None:
    found = layers_of([results, results / "sr.json", results.parent / "out" / "ids"])
    assert [layer.name for layer in found] == ["lr_x2", "sr", "sr-segments", "sr-2", "ids"]
    assert [layer.is_segmentation for layer in found] == [False, False, True, False, True]
    assert [layer.format for layer in found] == ["zarr3"] * 4 + ["precomputed"]
    assert {layer.corner_nm for layer in found} == {CORNER}
    assert found[1].root == (results / "sr-0123.zarr").resolve()
    state = viewer_state(found, "http://h/data/w", "xy")
    assert [layer["visible"] for layer in state["layers"]] == [False, True, False, False, False]
    assert state["layers"][1]["source"] == "zarr3://http://h/data/w/sr"
    assert state["layers"][1]["shaderControls"] == {"contrast": {"range": [0, 255]}}
    assert state["layers"][4]["type"] == "segmentation"
    assert state["dimensions"] == {"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [3e-8, "m"]}
    assert state["position"] == [20 + 48.5, 100 + 32.5, -2 + 3.5]
    assert json.loads(unquote(fragment(state).removeprefix("#!"))) == state
    assert [layer["visible"] for layer in viewer_state(found[2:3], "", "xy")["layers"]] == [True]


def test_registered_hr_is_a_layer(results: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "hr_registered.json", read_json(results / "sr.json"))
    (tmp_path / "sr.zarr").symlink_to(results / "sr.zarr")
    assert [layer.name for layer in layers_of([tmp_path])] == ["hr_registered"]


def test_n5_is_put_where_it_says(results: Path) -> None:
    folder = results.parent / "out" / "image.n5"
    for place, moved in ((folder, [20.0, 100.0, -2.0]), (folder / "s0", [20.0, 100.0, -2.0])):
        (layer,) = viewer_state(layers_of([place]), "http://h/data/w", "xy")["layers"]
        assert layer["source"]["url"] == f"n5://http://h/data/w/{place.name}"
        assert [row[3] for row in layer["source"]["transform"]["matrix"]] == moved
        assert layer["source"]["transform"]["outputDimensions"]["z"] == [3e-8, "m"]


def test_source_in_place_is_shown_where_its_card_says(
    results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = {**read_json(results / "sr.json"), "array": "hr.link"}
    write_json(tmp_path / "hr.json", card)
    out = results.parent / "out"
    for linked, format in ((out / "image", "precomputed"), (out / "image.n5", "n5"), (results / "sr.zarr", "zarr3")):
        write_link(tmp_path / "hr.link", open_source(linked))
        (layer,) = layers_of([tmp_path])
        assert (layer.root, layer.format, layer.corner_nm) == (linked.resolve(), format, CORNER)
    write_json(tmp_path / "hr.json", {**card, "translation_nm": [0.0, 0.0, 0.0]})
    with pytest.raises(ValueError, match="nothing to look at"):
        layers_of([tmp_path])
    assert "hr.json is left out: its source" in caplog.text


def test_voxels_come_whole_over_http(results: Path) -> None:
    (layer,) = layers_of([results / "sr.json"])
    with serving({layer.name: layer.root}, None, "127.0.0.1", 0) as address:
        kvstore = {"driver": "http", "base_url": f"{address.data}/sr/0/"}
        array = ts.open({"driver": "zarr3", "kvstore": kvstore, "fill_missing_data_reads": False}).result()
        assert np.array_equal(array[3:5, 20:50, 40:].read().result(), blocks()[3:5, 20:50, 40:])


def shown(png: bytes, ids: bool) -> np.ndarray:
    """A picture at one pixel a voxel: grey levels, or where there is colour."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.resize([round(side * X / FITS) for side in image.size], Image.Resampling.BOX)
    values = np.asarray(image).astype(float)
    return np.ptp(values, axis=-1) if ids else values.mean(axis=-1)


def found(png: bytes, layer: Layer) -> tuple[float, tuple[int, int]]:
    """How much the best match of the middle section correlates (to 1), and its first voxel in the picture."""
    section = blocks()[Z // 2].astype(float)
    match = match_template(shown(png, layer.is_segmentation), section > 127 if layer.is_segmentation else section)
    y, x = np.unravel_index(np.argmax(match), match.shape)
    return float(match.max()), (int(y), int(x))


@pytest.mark.skipif(not has_chromium, reason="no chromium: make chromium installs Debian's")
def test_browser_draws_every_layer_at_its_place(results: Path) -> None:
    layers = layers_of([results, *(results.parent / "out" / name for name in EXPORTED)])
    places = []
    with (
        serving({one.name: one.root for one in layers}, None, "127.0.0.1", 0) as data,
        serving({}, bundled_client(), "127.0.0.1", 0) as page,  # another origin: CORS counts
    ):
        for number, layer in enumerate(layers):
            state = viewer_state(layers, data.data, "xy")
            for other, stated in enumerate(state["layers"]):
                stated["visible"] = other == number
            likeness, place = found(picture(page.client + fragment(state), find_chromium(None)), layer)
            assert likeness > 0.8, layer
            places.append(place)
    assert len(places) == 3 + len(EXPORTED)
    assert np.ptp(np.array(places), axis=0).max() <= 1, places


@pytest.mark.skipif(not has_chromium, reason="no chromium: make chromium installs Debian's")
def test_screenshot_by_the_verb(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "view.png"
    assert cli.main(["view", str(results), "--screenshot", str(out)]) == 0
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert Image.open(io.BytesIO(png := out.read_bytes())).size == (1600, 1000)
    assert found(png, layers_of([results / "sr.json"])[0])[0] > 0.8


@pytest.mark.skipif(not has_chromium, reason="no chromium: make chromium installs Debian's")
def test_picture_that_does_not_come_is_one_line(results: Path) -> None:
    layers = layers_of([results / "sr.json"])
    with serving({}, bundled_client(), "127.0.0.1", 0) as address, socket.create_server(("127.0.0.1", 0)) as silent:
        absent, unanswered = address.data, f"http://127.0.0.1:{silent.getsockname()[1]}"
        for data, said in (
            (absent, r"cannot show sr: .*\w.*"),
            (unanswered, "drew no whole picture in 4 s: chunks .*"),
        ):
            url = address.client + fragment(viewer_state(layers, data, "xy"))
            with pytest.raises(OSError, match=rf"^neuroglancer {said}$"):
                picture(url, find_chromium(None), patience_s=4)


@contextmanager
def killed_at_last(run: subprocess.Popen[str]) -> Iterator[None]:
    """A process that a failed assertion leaves is not waited for."""
    try:
        yield
    finally:
        run.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_ends_by_a_signal_and_frees_its_port(results: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "emsr.cli", "view", str(results), "--no-browser"]
    kept = signal.signal(number, signal.SIG_DFL)  # a shell's background ignores SIGINT, and so would its children
    try:
        run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, kept)
    with run, killed_at_last(run):
        assert run.stdout is not None
        address = urlsplit(run.stdout.readline())
        assert address.hostname == "127.0.0.1"
        with socket.create_connection((address.hostname, address.port or 0)) as page:
            page.sendall(
                f"GET {address.path.replace('/v/', '/events/').rstrip('/')} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            assert page.recv(9) == b"HTTP/1.1 ", "a page that stays open"
            run.send_signal(number)
            assert run.wait(20) == 0
        assert run.stdout.read() == "stopped\n"
    socket.create_server((address.hostname, address.port or 0)).close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_browser_ends_with_a_run_that_is_ended(results: Path, tmp_path: Path) -> None:
    (program := tmp_path / "chromium").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    words = ["view", str(results), "--screenshot", str(tmp_path / "a.png"), "--chromium", str(program)]
    with subprocess.Popen([sys.executable, "-m", "emsr.cli", *words], stdout=subprocess.DEVNULL) as run:
        while not (tmp_path / "pid").is_file() or not (pid := (tmp_path / "pid").read_text().strip()):
            assert run.poll() is None
            time.sleep(0.05)
        run.terminate()
        assert run.wait(20) == 128 + signal.SIGTERM
    assert not Path("/proc", pid).exists()


def test_browser_that_fails_is_one_line(tmp_path: Path) -> None:
    (program := tmp_path / "chromium").write_text("#!/bin/sh\necho no display\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(OSError, match=r"^Chromium ended with status 3 and said: no display$"):
        picture("about:blank", program)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to look at: name a volume"),
        (["nowhere"], "nowhere is neither a folder nor a card"),
        (["."], ". holds volumes: name one of them: cells"),
        (["tiff"], "tiff is images: only OME-Zarr, precomputed and N5 are shown"),
        (["bool.zarr"], "bool.zarr is bool, which neuroglancer does not draw"),
        (["torn.json"], "torn.json is no image card"),
        (["other/sr.json"], "sr.zarr is .* not as .*sr.json states"),
        (["cells", "--port", "65536"], "port 65536 does not exist"),
        (["cells", "--layout", "xyz"], "layout 'xyz' is unknown; did you mean 'xy'"),
        (["cells", "--client", "page.html"], "client 'page.html' is no address"),
        (["cells", "--host", "256.0.0.1"], "cannot listen at 256.0.0.1 port 0"),
        (["cells", "--screenshot", "view.jpg"], "view.jpg does not end in .png"),
        (["cells", "--screenshot", "a.png", "--chromium", "nope"], "nope is no program: install chromium"),
    ],
)
def test_mistake_is_one_line_and_nothing_is_written(
    results: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = results.parent
    monkeypatch.chdir(folder)
    (folder / "torn.json").write_text("{}")
    (folder / "tiff").mkdir(exist_ok=True)
    tifffile.imwrite(folder / "tiff" / "0.tif", blocks()[0])
    if not (folder / "bool.zarr").exists():
        masked(folder / "bool.zarr")
    if not (folder / "other").exists():
        write_json(folder / "other" / "sr.json", {**read_json(results / "sr.json"), "shape": [1, 2, 3]})
        (folder / "other" / "sr.zarr").symlink_to(results / "sr.zarr")
    before = sorted(folder.rglob("*"))
    assert cli.main(["view", *words]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert re.search(message, said.err), said.err
    assert sorted(folder.rglob("*")) == before


def test_port_that_is_taken_is_one_line(results: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="choose another --port"):
        view([results], port=taken.getsockname()[1])
