"""Security, the row packages of the threats: lock.txt has a hash for everything that pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project import ROOT

OF_TORCH = r"torch|triton|nvidia-.*|cuda-.*"


def entries() -> dict[str, tuple[Requirement, list[str]]]:
    """Requirement and hashes of each package of the lock file."""
    whole = (ROOT / "lock.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in whole.splitlines():
        if line and not line.startswith("#"):
            said, *hashes = re.split(r"\s+--hash=", line.strip())
            requirement = Requirement(said)
            found[canonicalize_name(requirement.name)] = requirement, hashes
    return found


def test_every_package_has_one_version_and_hashes() -> None:
    locked = entries()
    assert len(locked) > 100
    for name, (requirement, hashes) in locked.items():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name


def test_what_a_build_of_torch_brings_is_not_locked() -> None:
    assert [name for name in entries() if re.fullmatch(OF_TORCH, name)] == []
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)


def test_it_is_a_lock_of_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = entries()
    for line in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        asked = Requirement(line)
        if asked.name != "torch":
            version = str(locked[canonicalize_name(asked.name)][0].specifier).removeprefix("==")
            assert asked.specifier.contains(version), f"{line}, locked {version}: make lock"


def test_it_fits_what_is_pinned_for_other_reasons() -> None:
    locked, pins = entries(), (ROOT / "constraints.txt").read_text().splitlines()
    for pin in (Requirement(line) for line in pins if line and not line.startswith("#")):
        if pin.name != "torch":
            assert locked[canonicalize_name(pin.name)][0].specifier == pin.specifier


@pytest.mark.parametrize("file", ["lock.txt", "constraints.txt", "pyproject.toml", "Makefile"])
def test_no_file_says_where_packages_come_from(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b", text, flags=re.MULTILINE)
    assert not re.search(r"https?://(?!pytorch\.org)", text)


def test_an_audit_without_answers_fails(tmp_path: Path) -> None:
    """`make -n` shows the command; --strict makes what could not be looked up an error."""
    done = subprocess.run(["make", "-n", "audit"], cwd=ROOT, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("pip-audit"))
    assert "--strict" in line.split()
    assert "lock.txt" in line
    assert "constraints.txt" in line
