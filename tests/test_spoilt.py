"""A file that is deleted, emptied, cut or has a flipped bit is found by the step that reads it, before it is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import faulted
from emsr import cli, durable
from emsr.cli import USER_MISTAKES
from emsr.durable import read_json, write_json, write_sealed
from emsr.shards import proved
from emsr.steps.train import _record
from emsr.stores.tables import digest, parts
from faulted import STEPS, content, copied, recorded
from sr_project import write_weights

FLIPS = 8  # of a file, at places spread over it


def flipped(at: int) -> Callable[[Path], object]:
    """The bit that is chosen by the place, of the byte that lies so many eighths into the file."""

    def spoil(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[(2 * at + 1) * len(data) // (2 * FLIPS)] ^= 1 << at % 8
        file.write_bytes(data)

    return spoil


SPOILT: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3]),
    "of no content": lambda file: file.write_bytes(b"{}\n"),
    **{f"flipped {at}": flipped(at) for at in range(FLIPS)},
}
READ = [  # which file the step reads
    ("superresolve", "sr/allocate.json"),
    ("superresolve", "bicubic_x4_0.json"),
    ("superresolve", "bicubic_x4_0.safetensors"),
    ("superresolve", "lr.zarr/0/c/0/0/0"),
    ("allocate", "lr.json"),
    ("allocate", "bicubic_x4_0.json"),
    ("stitch", "sr/allocate.json"),
    ("stitch", f"sr/jobs/{faulted.JOB}.json"),
    ("stitch", "sr-*.records/0_0_1.json"),
    ("stitch", "sr-*.zarr/0/c/0/0/1"),
    ("predict", "affinities/allocate.json"),
    ("predict", "affinity.safetensors"),
    ("prove_affinities", "affinities/affinities-*.records/0_0_1.json"),
    ("prove_affinities", "affinities/affinities-*.zarr/0/c/0/0/0/1"),
    ("allocate_fragments", "affinities.json"),
    ("cut", "fragments/allocate.json"),
    ("cut", "affinities.json"),
    ("cut", "affinities/affinities-*.zarr/0/c/0/0/0/1"),
    ("prove_fragments", f"fragments/jobs/{faulted.JOB}.json"),
    ("agglomerate", "fragments.json"),
    ("agglomerate", "fragments/fragments-*.zarr/0/c/0/0/1"),
    ("threshold", "agglomeration.json"),
    ("label", "agglomeration.json"),
    ("label", "agglomeration/history.npz"),
    ("label", "threshold.json"),
    ("label", "fragments.json"),
]


def mistake(action: Callable[[], object]) -> str | None:
    """The line that people get; None where nothing was wrong."""
    try:
        action()
    except USER_MISTAKES as error:
        return " ".join(str(error).split())
    return None


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each step that is looked at a folder with what must stand before it."""
    folder = tmp_path_factory.mktemp("before")
    for name in {name for name, _ in READ}:
        STEPS[name].prepare(folder / name)
    return folder


@pytest.mark.parametrize(("name", "place"), READ, ids=[f"{name} reads {place}" for name, place in READ])
def test_a_spoilt_file_is_found_by_the_step_that_reads_it(before: Path, tmp_path: Path, name: str, place: str) -> None:
    folder = copied(before / name, tmp_path / "folder")
    faulted.again(folder, name)
    whole, found = content(folder), 0
    for how, spoil in SPOILT.items():
        copied(before / name, folder)
        (file,) = folder.glob(place)
        spoil(file)
        own = {str(file.relative_to(folder))}
        if (line := mistake(lambda: faulted.again(folder, name))) is not None:
            found += 1
            where = {part for part in file.relative_to(folder).parts if part[0] not in "01c"}
            assert any(one in line for one in (file.stem, *where)), f"{how}: {line} does not name {file}"
            assert not (folder / STEPS[name].out).exists(), how
        else:
            after = content(folder)
            assert {path: after[path] for path in after.keys() - own} == {
                path: whole[path] for path in whole.keys() - own
            }, f"{how}: taken for whole, and something else came of it"
    assert found >= len(SPOILT) - 2, "a flipped bit where nothing stands, or in the name of the seal, may do no harm"


def test_every_single_bit_of_a_sealed_document_counts(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    document = {"sha256": "0123456789abcdef", "shape": [1, 20, 300], "scale": 4.0, "of": None}
    write_sealed(file, document)
    data = file.read_bytes()
    assert read_json(file) == document
    harmless = 0
    for at in range(len(data) * 8):
        spoilt = bytearray(data)
        spoilt[at // 8] ^= 1 << at % 8
        file.write_bytes(spoilt)
        if (line := mistake(lambda: read_json(file))) is not None:
            assert str(file) in line
        else:
            harmless += 1
            assert document.items() <= read_json(file).items(), f"bit {at}"
    assert harmless <= 8 * len(durable.SEAL), "in the name of the seal alone"


def test_documents_of_earlier_versions_have_no_seal(tmp_path: Path) -> None:
    write_json(tmp_path / "card.json", {"scale": 4})
    assert read_json(tmp_path / "card.json") == {"scale": 4}
    written = (tmp_path / "card.json").read_bytes()
    write_sealed(tmp_path / "card.json", {"scale": 4})
    assert (tmp_path / "card.json").read_bytes() == written, "and stay what they are where nothing changes"
    write_sealed(tmp_path / "card.json", {"scale": 8})
    assert b'"seal"' in (tmp_path / "card.json").read_bytes()


def test_seals_survive_numbers_and_names_that_json_changes(tmp_path: Path) -> None:
    write_sealed(tmp_path / "card.json", {"a": (1, 2), "b": {3: 0.1 + 0.2}, "ä": 1e300, "c": 5e-324})
    assert read_json(tmp_path / "card.json") == {"a": [1, 2], "b": {"3": 0.1 + 0.2}, "ä": 1e300, "c": 5e-324}


def sealless(file: Path) -> bool:
    """Whether the bit that flipped is one of the name of the seal: then the rest is right."""
    data = file.read_bytes() if file.is_file() else b""
    return data.count(b": ") > 3 and f'"{durable.SEAL}": '.encode() not in data


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_record_costs_its_shard_and_no_other(before: Path, tmp_path: Path, how: str) -> None:
    folder = copied(before / "stitch", tmp_path / "folder")
    whole = content(folder)
    (file,) = folder.glob("sr-*.records/0_0_1.json")
    SPOILT[how](file)
    harmless = sealless(file)
    assert faulted.again(folder, "superresolve") == ([] if harmless else ["0_0_1"])
    if harmless:
        file.write_bytes(whole[str(file.relative_to(folder))])
    assert content(folder) == whole
    assert recorded(folder, "superresolve") == {"0_0_0", "0_0_1"}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_proof_proves_nothing_and_spoilt_stats_are_no_reason_to_stop(tmp_path: Path, how: str) -> None:
    step = STEPS["stitch"]
    step.prepare(tmp_path / "folder")
    folder = tmp_path / "folder"
    step.run(folder)
    whole = content(folder)
    proof, stats = folder / "sr/proof.json", folder / f"sr/jobs/{faulted.JOB}.stats.json"
    settings = read_json(proof)["settings"]
    marks = [str(folder / f"sr/jobs/{faulted.JOB}.json")]
    assert proved(proof, settings) == marks
    for file in (proof, stats):
        SPOILT[how](file)
    assert proved(proof, settings) == (marks if sealless(proof) else None)
    assert faulted.again(folder, "superresolve") == []
    faulted.again(folder, "stitch")
    assert content(folder) == whole


def test_a_spoilt_graph_of_a_shard_is_made_again(before: Path, tmp_path: Path) -> None:
    folder = copied(before / "label", tmp_path / "folder")
    whole = content(folder)
    for number, spoil in enumerate(SPOILT.values()):
        file = folder / "agglomeration/graph" / ("0_0_1.npz" if number % 2 else "0_0_0.npz")
        tables = digest(parts(file))
        spoil(file)
        faulted.again(folder, "agglomerate")
        assert digest(parts(file)) == tables
        file.write_bytes(whole[str(file.relative_to(folder))])  # a bit may flip in what says when it was packed
        assert content(folder) == whole


def test_merges_of_other_fragments_are_refused(before: Path, tmp_path: Path) -> None:
    folder = copied(before / "label", tmp_path / "folder")
    stated = read_json(folder / "fragments.json")
    write_sealed(folder / "fragments.json", stated | {"sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"agglomeration\.json is not of the fragments in .*run agglomerate again"):
        faulted.again(folder, "label")
    assert not (folder / "segments.json").exists()


def test_a_shard_that_lost_its_record_is_not_segmented_or_scored(before: Path, tmp_path: Path) -> None:
    """Another job has begun to write it anew."""
    from emsr.steps.score import _open

    folder = copied(before / "stitch", tmp_path / "folder")
    faulted.again(folder, "stitch")
    shutil.copy(before / "predict/affinity.json", folder)
    shutil.copy(before / "predict/affinity.safetensors", folder)
    shutil.copy(folder / "sr.json", folder / "hr.json")
    next(folder.glob("sr-*.records/0_0_1.json")).unlink()
    stated = {"scale": 4, "lr": str(folder / "lr.json"), "sr": str(folder / "sr.json")}
    with pytest.raises(ValueError, match=r"shard 0_0_1 of sr-.* has no record, though .*sr\.json vouches for it"):
        _open(stated)
    with pytest.raises(ValueError, match=r"shard 0_0_1 of sr-.* has no record"):
        faulted.allocate_affinities(folder)
    assert not (folder / "affinities").exists()


# -- verify and repair ------------------------------------------------------------------------------------------------


def results(folder: Path) -> Path:
    """Results whose volume was made by weights that were trained there."""
    trained = folder / "results/trainings/own"
    trained.mkdir(parents=True)
    card = write_weights(trained, "gpemsr", 4)
    for file in (card, card.with_suffix(".safetensors")):
        file.rename(trained / f"fusion{file.suffix}")
    write_sealed(_record(trained / "fusion.json"), {"identity": "x", "card": read_json(trained / "fusion.json")})
    STEPS["stitch"].prepare(folder / "results/cells")
    faulted.stitch(folder / "results/cells")
    return folder / "results"


@pytest.mark.parametrize("how", [how for how in SPOILT if how != "deleted"])
def test_verify_names_spoilt_weights_and_repair_removes_their_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    made, trained = results(tmp_path), tmp_path / "results/trainings/own"
    assert cli.main(["verify", str(made)]) == 0
    SPOILT[how](trained / "fusion.safetensors")
    capsys.readouterr()
    assert cli.main(["verify", str(made)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("weights own fusion: ")
    assert "fusion.safetensors: has sha256" in line
    assert cli.main(["repair", str(made)]) == 0
    assert not (trained / "fusion.json").exists()
    assert (trained / "fusion.safetensors").exists()


@pytest.mark.parametrize("name", ["fusion.json", "fusion.record.json"])
def test_verify_names_a_spoilt_card_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    made, trained = results(tmp_path), tmp_path / "results/trainings/own"
    write_json(trained / name, {**json.loads((trained / name).read_text()), "scale": 5})
    assert cli.main(["verify", str(made)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{name} is damaged" in line or f"{name}: is damaged" in line
    assert cli.main(["repair", str(made)]) == 0
    assert not (trained / name).exists()


def test_weights_from_elsewhere_are_named_and_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, given = results(tmp_path), tmp_path / "given"
    given.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.move(made / f"cells/bicubic_x4_0{suffix}", given / f"bicubic_x4_0{suffix}")
    stated = read_json(made / "cells/sr/allocate.json")
    write_sealed(made / "cells/sr/allocate.json", stated | {"card": "../../../given/bicubic_x4_0.json"})
    assert cli.main(["verify", str(made)]) == 0
    flipped(3)(given / "bicubic_x4_0.safetensors")
    capsys.readouterr()
    assert cli.main(["repair", str(made)]) == 1
    assert "given bicubic_x4_0" in capsys.readouterr().out
    assert (given / "bicubic_x4_0.json").is_file()


def test_verify_names_spoilt_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results/cells/segmentations/hr"
    STEPS["label"].prepare(folder)
    assert cli.main(["verify", str(tmp_path / "results")]) == 0
    file = folder / "agglomeration/history.npz"
    flipped(4)(file)
    capsys.readouterr()
    assert cli.main(["verify", str(tmp_path / "results")]) == 1
    assert "history.npz: " in capsys.readouterr().out
    assert cli.main(["repair", str(tmp_path / "results")]) == 0
    before = np.array(faulted.again(folder, "agglomerate"))
    assert before.size == 1
    assert cli.main(["verify", str(tmp_path / "results")]) == 0
