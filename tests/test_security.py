"""Security: what may not run code or leave its place, a test for each row of the threats (SECURITY.md).

Rows: code from a checkpoint, words that become shell, paths that leave the results, other users of the machine, the
report's HTML. YAML is in test_security_config.py; volumes, addresses, credentials and modes of files in
test_security_data.py; hashes of packages in test_lock.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from bad_sources import little_memory
from emsr.commands.import_weights import import_weights
from emsr.config_files import read
from emsr.durable import read_json
from emsr.inference.devices import claimed
from emsr.models import checkpoint
from emsr.report.evidence import RuleCost, RunEvidence, StageEvidence, TrainingEvidence
from emsr.report.page import render
from network_goldens import TINY, card
from project import ROOT, Project


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, in which nothing is called PWNED at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("*PWNED*"))


# code from a checkpoint


class Evil:
    """What touches PWNED when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def packed(file: Path) -> None:
    """An archive whose tensors are compressed: 64 MB in 64 kB."""
    torch.save({"conv_last.weight": torch.zeros(2**24)}, "whole.pth")
    with zipfile.ZipFile("whole.pth") as whole, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in whole.infolist():
            archive.writestr(part.filename, whole.read(part))
    Path("whole.pth").unlink()


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2**40,), check_invariants=True)


WEIGHTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("a pickle", lambda file: file.write_bytes(pickle.dumps(Evil(), 2)), "cannot be read as PyTorch weights"),
    ("a pickle in an archive", lambda file: torch.save({"params": Evil()}, file), "cannot be read as PyTorch weights"),
    ("a module", lambda file: torch.save(torch.nn.Linear(1, 1), file), "cannot be read as PyTorch weights"),
    ("an archive that unpacks", packed, r"of \d+ bytes unpacks to 671\d+, which torch.save never makes"),
    ("4 TB of one number", lambda file: torch.save({"a": torch.zeros(1).half().expand(2**40)}, file),
     r"tensor 'a' of shape \(1099511627776,\) is not stored number by number"),
    ("a sparse tensor", lambda file: torch.save({"a": sparse()}, file), "is not stored number by number"),
    ("no numbers", lambda file: torch.save({"a": torch.zeros(2**40, device="meta")}, file), "not stored number by"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "make", "words"), WEIGHTS, ids=[case for case, *_ in WEIGHTS])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_checkpoint_of_others_runs_nothing_and_takes_no_memory(here: Path, case: str, make: Any, words: str) -> None:
    make(here / "w.pth")
    with little_memory(2**29), pytest.raises(ValueError, match=words) as refusal:
        import_weights(here / "w.pth", stage="fusion", scale=8, out=here / "out" / "w.safetensors")
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value), "nobody is told how to switch it off"
    assert not (here / "out").exists()


def weights(folder: Path, **changes: Any) -> Path:
    """Good weights of a flow network, with a card that lies."""
    about, file = card("gpemsr", "flow", 8, TINY), folder / "w.safetensors"
    checkpoint.save(file, checkpoint.network(about).state_dict(), about)
    said = read_json(file.with_suffix(".json"))
    file.with_suffix(".json").write_text(json.dumps({**said, **changes}))
    return file


def test_weights_of_emsr_are_no_pickle_whatever_their_card_says(here: Path) -> None:
    content = pickle.dumps(Evil())
    file = weights(here, sha256=hashlib.sha256(content).hexdigest())
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not safetensors"):
        checkpoint.load(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "evil.thing"}, "thing.py has no class Options"),
        ({"model": "../../../evil/thing"}, "is no name of a Python module"),
        ({"model": "/evil/thing"}, "is no name of a Python module"),
        ({"model": ["evil"]}, r"is no card of weights: model is \['evil'\]"),
        ({"options": {**vars(TINY), "flow_widths": [2**20, 2**20]}}, "does not fit the network: .*misshapen"),
    ],
    ids=["a module", "a path", "a path from the root", "no name", "16 TB"],
)
def test_a_card_imports_no_module_that_is_no_model_and_takes_no_memory(
    here: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    (here / "evil").mkdir()
    (here / "evil" / "thing.py").write_text("open('PWNED', 'w').close()\n")
    monkeypatch.syspath_prepend(here)
    file = weights(here, **changes)
    with little_memory(2**29), pytest.raises(ValueError, match=words):
        checkpoint.load(file)


def test_a_card_of_a_million_brackets_is_one_line(here: Path) -> None:
    file = weights(here)
    file.with_suffix(".json").write_text("[" * 10**6)
    with pytest.raises(ValueError, match="is not JSON"):
        checkpoint.load_card(file)


# words that become shell

# numbers, a word that Snakemake makes, and a flag or nothing
WHOLE = {"{threads}", "{resources.mem_mb}", "{resources.gpu}", "{resources.runtime}", "{resources.requeue}"}
WHOLE |= {"{wildcards.scatteritem}", "{params.mismatch}"}


def test_every_word_of_a_shell_line_is_quoted() -> None:
    lines = [
        line
        for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
        for line in re.findall(r'^\s+f?"(emsr [^"]*|[^"]*--log [^"]*)"', file.read_text(), flags=re.MULTILINE)
    ]
    assert len(lines) > 15
    holes = [hole for line in lines for hole in re.findall(r"\{[^}]*\}", line)]
    assert len(holes) > 40
    assert {hole for hole in holes if not hole.endswith(":q}")} <= WHOLE


@pytest.mark.workflow
def test_a_path_is_no_shell(here: Path) -> None:
    """A real run, from the config's words to the card of the image."""
    folder = here / "data" / "a;touch PWNED; $(touch PWNED2) `touch PWNED3` 'q\" -x {} \n\té"
    folder.mkdir(parents=True)
    name = "$(touch PWNED4);raw 'x"
    with h5py.File(folder / "-v.h5", "w") as file:
        file[name] = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype("u1")
    values = read(ROOT / "config.yaml")
    lr = {"path": str(folder / "-v.h5"), "dataset": name, "voxel_size_nm": [40, 32, 32]}
    values |= {"volumes": {"far": {"lr": lr}}, "trainings": {}}
    project = Project(here, values)
    folders = {file.name for file in here.iterdir()}
    run = project.run("results/far/lr.json")
    assert run.rules["ingest"] == 1
    assert project.json("far", "lr.json")["source"]["path"] == str(folder / "-v.h5")
    assert {file.name for file in here.iterdir()} - folders <= {"results", ".snakemake"}
    (folder / "-v.h5").unlink()
    folder.rmdir()


# other users of the machine


def test_a_lock_in_the_shared_folder_is_never_a_link_of_somebody_else(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(here))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid="GPU"))
    (here / f"emsr-{os.getuid()}-gpu-GPU.lock").symlink_to(here / "mine")
    with pytest.raises(OSError, match="emsr-"), claimed("cuda"):
        pass
    assert not (here / "mine").exists()


# the report

EVIL = "<script src=//x.org>alert(1)</script><img src=x onerror=alert(2)>\"' onload='alert(3)&amp;"


class Tags(HTMLParser):
    """Tags of a page, those of its attributes that run or fetch, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.active += [pair for pair in attrs if pair[0].startswith("on") or "javascript:" in (pair[1] or "")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_in_the_report() -> None:
    about = {"model": EVIL, "preset": EVIL, "stage": EVIL, "sha256": EVIL, "health": {}, "training": {}, "scores": {}}
    training = TrainingEvidence(EVIL, [StageEvidence(EVIL, about)])
    rule = RuleCost(EVIL, 1, 1.0, 1.0, None, None)
    run = RunEvidence(EVIL, EVIL, EVIL, {"emsr": EVIL, EVIL: EVIL}, [(EVIL, EVIL)], [], [training], [rule])
    page = Tags(render(run, {}))
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed"}
    assert not page.active
    assert page.text.count(EVIL) >= 8
