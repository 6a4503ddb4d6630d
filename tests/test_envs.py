"""The conda environments of the rules and the dependencies name every third-party import; the SLURM profiles agree."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from emsr import plugins
from emsr.cli import VERBS

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "snakemake_interface_common": "snakemake-interface-common",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}  # where module and package differ
PACKAGES |= dict.fromkeys(("cloudvolume", "cloudfiles"), "cloud-volume")
CHANNEL = {"dask-core": "dask", "matplotlib-base": "matplotlib"}  # the same, as the channel names them
# folders that a verb imports from by name
PLUGINS = {"train": ("models", "training/objectives"), "ingest": ("stores",)}
NETWORKS = ("allocate", "superresolve", "allocate-affinities", "affinities")


def file_of(module: str) -> Path | None:
    """The file of a module of emsr; None for anything else."""
    path = plugins.PACKAGE.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, so none below ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from nodes(node)


@cache
def imports(file: Path) -> frozenset[str]:
    """Names of all modules that a file imports, also inside functions."""
    found = set()
    for node in nodes(plugins.tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            here = ".".join(file.parent.relative_to(plugins.PACKAGE.parent).parts)
            module = f"{here}.{node.module}" if node.level else node.module
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def packages(*files: Path) -> set[str]:
    """Third-party packages that files of emsr need, with all that they import of emsr."""
    seen, todo, found = set(files), list(files), set[str]()
    while todo:
        for module in imports(todo.pop()):
            top = module.split(".")[0]
            if top == "emsr":
                new = {file} - seen if (file := file_of(module)) else set()
                seen |= new
                todo += new
            elif top not in sys.stdlib_module_names:
                found.add(PACKAGES.get(top, top))
    return found


def needed(verb: str) -> set[str]:
    file = file_of(VERBS[verb])
    assert file is not None
    folders = PLUGINS.get(verb, ("models",) if verb in NETWORKS else ())
    return packages(file, *(one for folder in folders for one in (plugins.PACKAGE / folder).glob("*.py")))


def listed(environment: str) -> set[str]:
    stated = yaml.safe_load((ROOT / "envs" / f"{environment}.yaml").read_text())["dependencies"]
    flat = [one for part in stated for one in (part["pip"] if isinstance(part, dict) else [part])]
    names = [re.split(r"[=<>\[]", one)[0] for one in flat]
    return {CHANNEL.get(name, name) for name in names}


RULES = [
    (found[1], found[3], found[2])
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for found in re.finditer(
        r"^rule (\w+):.*?envs/(\w+)\.yaml.*?\"emsr ([a-z-]+) ", file.read_text(), flags=re.MULTILINE | re.DOTALL
    )
]


def test_every_rule_has_an_environment() -> None:
    texts = [file.read_text() for file in (ROOT / "workflow" / "rules").glob("*.smk")]
    assert len(RULES) == sum(text.count("\nrule ") for text in texts)


@pytest.mark.parametrize(("rule", "verb", "environment"), RULES, ids=[row[0] for row in RULES])
def test_environment_lists_what_the_rule_imports(rule: str, verb: str, environment: str) -> None:
    assert needed(verb) <= listed(environment)


def test_dependencies_are_what_the_package_imports() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[=<>\[]", one)[0] for one in stated}
    run = {"snakemake", "snakemake-executor-plugin-slurm"}  # it runs emsr, and is not only imported
    codecs = {"imagecodecs"}  # of tifffile
    served = {"neuroglancer"}  # its page, which a browser runs
    assert packages(*plugins.PACKAGE.rglob("*.py")) | run | codecs | served == names


def test_the_profiles_differ_in_how_they_ask_for_gpus_alone() -> None:
    ours, other = (yaml.safe_load((ROOT / name / "config.yaml").read_text()) for name in ("slurm", "slurm-gres"))
    for rule in ours["set-resources"].values():
        assert rule.pop("gpu") == 1
    for rule in other["set-resources"].values():
        assert rule.pop("gres") == "gpu:1"
    assert ours == other
