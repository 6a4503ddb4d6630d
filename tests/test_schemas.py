"""Every document states its schema, and each reader refuses one that it does not know, by name, and leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zarr

from chunked import settings
from emsr.commands.repair import repair
from emsr.commands.status import status
from emsr.commands.verify import verify
from emsr.durable import SchemaError, read_json, write_json
from emsr.models.checkpoint import load_card
from emsr.schema_parts import WeightsFile
from emsr.settings import standing
from emsr.shards import proved
from emsr.steps import evidence, fragments, segment_history, train
from emsr.steps.data import ingest
from emsr.stores.card import read_card
from emsr.stores.export_staging import BEGUN, staged
from emsr.stores.journal import Journal
from emsr.stores.zarr import Layout, open_array, recreate
from emsr.training import state
from segment_project import Chain, image, weights
from sr_project import SrProject, tissue_like, write_weights

MESSAGE = "has schema 2, this emsr reads 1 to 1: use the emsr that wrote it, or delete it"


@dataclass(frozen=True)
class Made:
    """A volume that is super-resolved in two jobs, an image that is segmented, and a folder of further documents."""

    results: Path
    volume: SrProject
    chain: Chain
    others: Path

    @property
    def record(self) -> Path:
        return sorted((self.volume.folder / "sr.zarr").resolve().with_suffix(".records").glob("*.json"))[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    results, others = (tmp_path_factory.mktemp(name) for name in ("results", "others"))
    volume = SrProject(results / "cells", write_weights(others, "bicubic", 4))
    volume.folder.mkdir()
    volume.write_lr(tissue_like((4, 20, 28)))
    volume.all(2)
    chain = Chain(results / "image" / "segmentations" / "hr", jobs=1)
    chain.all(image(results / "image", tissue_like((3, 34, 34))), weights(others))
    zarr.create_array(others / "source", shape=(4, 30, 20), chunks=(1, 16, 16), dtype="u1")[:] = 7
    ingest(settings(others / "source", voxel_size_nm=[40, 5, 4], link=True), others / "hr.json")
    write_json(others / "scores.json", {"schema": 1})
    write_json(others / "fusion.record.json", {"schema": 1, "identity": "other", "card": {}})
    write_json(others / ".out.partial" / BEGUN, {"schema": 1, "format": "n5"})
    state.save(others / "state", {"step": 1}, "one")
    with Journal(others / "lr.json", {"source": 1}).open():
        pass
    return Made(results, volume, chain, others)


def new_export(made: Made) -> None:
    with staged(made.others / "out", lambda path: None, {"schema": 1, "format": "n5"}):
        raise AssertionError("an export of another emsr was taken over")


def trained(made: Made) -> None:
    train._restored(SimpleNamespace(out=made.others / "fusion.json", identity=lambda: "mine"))


def seen(made: Made, scores: Path) -> None:
    card = str(made.volume.folder / "sr.json")
    evidence.volume("cells", {"lr": card, "sr": card, "scores": str(scores), "allocate": card}, {})


Reader = Callable[[Made], Any]
DOCUMENTS: list[tuple[str, Callable[[Made], Path], Reader]] = [
    ("image card", lambda m: m.volume.lr, lambda m: read_card(m.volume.lr)),
    ("card of weights", lambda m: m.volume.card, lambda m: load_card(m.volume.card)),
    ("card of weights, in a config", lambda m: m.volume.card,
     lambda m: WeightsFile.model_construct(path=str(m.volume.card)).scale),
    ("allocate.json", lambda m: m.volume.allocation, lambda m: m.volume.job("1-of-2")),
    ("record, by a job", lambda m: m.record, lambda m: m.volume.job("1-of-2")),
    ("record, by stitch", lambda m: m.record, lambda m: m.volume.stitch(2)),
    ("record, by verify", lambda m: m.record, lambda m: verify(m.results)),
    ("mark, by stitch", lambda m: m.volume.mark("1-of-2"), lambda m: m.volume.stitch(2)),
    ("mark, by repair", lambda m: m.volume.mark("1-of-2"), lambda m: repair(m.results)),
    ("stats, by a job", lambda m: m.volume.mark("1-of-2").with_suffix(".stats.json"),
     lambda m: m.volume.job("1-of-2")),
    ("stats of stitch", lambda m: m.volume.allocation.with_name("stitch.stats.json"),
     lambda m: evidence.seams({"seams": {}}, m.volume.allocation.parent)),
    ("proof.json", lambda m: m.volume.allocation.with_name("proof.json"),
     lambda m: proved(m.volume.allocation.with_name("proof.json"), {})),
    ("array", lambda m: m.volume.folder / "lr.zarr" / "zarr.json", lambda m: open_array(m.volume.folder / "lr.zarr")),
    ("array of another layout", lambda m: m.volume.folder / "lr.zarr" / "zarr.json",
     lambda m: recreate(m.volume.folder / "lr.zarr", Layout(*[(1, 1, 1), "uint8"], *[(1, 1, 1)] * 3))),
    ("card of affinities", lambda m: m.chain.folder / "affinities.json", lambda m: m.chain.cut()),
    ("card of fragments", lambda m: m.chain.folder / "fragments.json", lambda m: m.chain.merge()),
    ("allocate.json of fragments", lambda m: m.chain.folder / "fragments" / "allocate.json",
     lambda m: fragments.fragments(m.chain.fragments, m.chain.folder / "fragments" / "allocate.json", "1-of-1",
                                   m.chain.folder / "fragments" / "jobs" / "1-of-1.json", workers=1)),
    ("agglomeration.json", lambda m: m.chain.folder / "agglomeration.json",
     lambda m: segment_history.open_merged(m.chain.folder / "agglomeration.json")),
    ("threshold.json", lambda m: m.chain.folder / "threshold.json",
     lambda m: segment_history.read_threshold(m.chain.folder / "threshold.json")),
    ("link", lambda m: m.others / "hr.link", lambda m: open_array(m.others / "hr.link")),
    ("journal", lambda m: m.others / "lr.unfinished", lambda m: Journal(m.others / "lr.json", {"source": 1})),
    ("scores.json", lambda m: m.others / "scores.json", lambda m: seen(m, m.others / "scores.json")),
    ("record of a training", lambda m: m.others / "fusion.record.json", trained),
    ("index of states", lambda m: m.others / "state" / state.INDEX, lambda m: state.load(m.others / "state", "one")),
    ("begun export", lambda m: m.others / ".out.partial" / BEGUN, new_export),
]  # fmt: skip


@pytest.mark.parametrize(("document", "read"), [row[1:] for row in DOCUMENTS], ids=[row[0] for row in DOCUMENTS])
def test_a_newer_document_is_refused_by_its_schema_and_left_alone(
    made: Made, document: Callable[[Made], Path], read: Reader
) -> None:
    path = document(made)
    own = path.read_text()
    assert own.count('"schema":') >= 1, "every document states its schema"
    newer = own.replace('"schema": 1', '"schema": 2', 1).replace('"schema":1', '"schema":2', 1)
    try:
        path.write_text(newer)
        with pytest.raises(SchemaError) as refused:
            read(made)
        assert path.name in str(refused.value)
        assert MESSAGE in str(refused.value)
        assert path.read_text() == newer, "nothing that a newer emsr wrote is written over"
    finally:
        path.write_text(own)


def test_status_names_it_and_goes_on(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    own = made.volume.allocation.read_text()
    try:
        made.volume.allocation.write_text(own.replace('"schema": 1', '"schema": 2'))
        status(made.results)
    finally:
        made.volume.allocation.write_text(own)
    told = capsys.readouterr().out
    assert f"cells: {made.volume.allocation} {MESSAGE}" in told
    assert "image hr affinities: " in told, "other arrays are told of"


def test_the_workflow_ends_with_one_line(made: Made, tmp_path: Path) -> None:
    write_json(tmp_path / "proof.json", {"schema": 2})
    with pytest.raises(SystemExit, match=f"emsr: error: .*{MESSAGE}"):
        standing(tmp_path / "proof.json", "{}")


@pytest.mark.parametrize("schema", [0, -1, 1.0, True, "1", None, [1]])
def test_a_schema_that_is_none(tmp_path: Path, schema: Any) -> None:
    write_json(tmp_path / "a.json", {"schema": schema})
    with pytest.raises(SchemaError, match="this emsr reads 1 to 1"):
        read_json(tmp_path / "a.json")
