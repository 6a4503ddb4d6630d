"""A module name becomes a module; what it offers is read from its syntax tree, without importing it.

A model, a store or a metric is one file: ``gpemsr`` is ``emsr.models.gpemsr``, a dotted name is anyone's module.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from emsr.scales import Scale, pair, stated

PACKAGE = Path(__file__).parent
CAUTION = "perceptual, not for measurement"


def names(kind: str) -> list[str]:
    """Names of the plug-ins that come with emsr, ``kind`` being a folder such as "models": files that state SCALES."""
    return sorted(file.stem for file in (PACKAGE / kind).glob("*.py") if has(file, "SCALES"))


def module_name(kind: str, name: str) -> str:
    """The dotted module name of plug-in ``name``."""
    return name if "." in name else f"emsr.{kind}.{name}"


def load(kind: str, name: str) -> ModuleType:
    """Import plug-in ``name``."""
    return importlib.import_module(module_name(kind, name))


def file_of(kind: str, name: str) -> Path:
    """The file of plug-in ``name``; raises ValueError if there is none."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{kind.removesuffix('s')} name {name!a} is no name of a Python module; correct it")
    if "." not in name:
        file = PACKAGE / kind / f"{name}.py"
        if file.is_file() and has(file, "SCALES"):
            return file
        raise ValueError(unknown(f"{kind.removesuffix('s')} name", name, names(kind)))
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"module {name!r} cannot be found; install it or put its folder on PYTHONPATH")
    return Path(spec.origin)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line that says that ``name`` is unknown, with the nearest known name or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"{what} {name!r} is unknown; " + (
        f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
    )


@lru_cache(maxsize=256)
def _tree(file: Path, _modified: int) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def tree(file: Path) -> ast.Module:
    """The syntax tree of ``file``, parsed once per state of the file."""
    return _tree(file, file.stat().st_mtime_ns)


def _assigned(file: Path, name: str) -> ast.expr | None:
    """The expression that module ``file`` assigns to ``name`` at its top level."""
    for node in tree(file).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.value
    return None


def has(file: Path, name: str) -> bool:
    """Whether module ``file`` assigns to ``name`` at its top level."""
    return _assigned(file, name) is not None


def literal(file: Path, name: str) -> object:
    """The value of constant ``name`` of module ``file``; raises ValueError if it is no literal."""
    node = _assigned(file, name)
    if node is None:
        raise ValueError(f"{file.name} has no constant {name}; a plug-in must state it")
    return ast.literal_eval(node)


def keys(file: Path, name: str) -> list[str]:
    """The string keys of dictionary constant ``name`` of module ``file``."""
    node = _assigned(file, name)
    if not isinstance(node, ast.Dict):
        raise ValueError(f"{file.name} has no dictionary {name}; a plug-in must state it")
    return [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def check_scale(name: str, scale: Scale) -> None:
    """ValueError, in one line, for a scale that model ``name`` does not have: SCALES, or what lies in SCALE_RANGE."""
    file = file_of("models", name)
    legal = literal(file, "SCALES")
    if not isinstance(legal, tuple) or scale in legal:
        return
    between = literal(file, "SCALE_RANGE") if has(file, "SCALE_RANGE") else None
    if isinstance(between, tuple) and all(between[0] <= one <= between[1] for one in pair(scale)):
        return
    has_them = f"{between[0]:g} to {between[1]:g}" if isinstance(between, tuple) else ", ".join(map(str, legal))
    raise ValueError(f"scale {stated(scale)} is not one that model {name} has: {has_them}")


def output(file: Path) -> str:
    """What the network of model ``file`` gives: "sr", unless its constant OUTPUT says "affinity"."""
    return str(literal(file, "OUTPUT")) if has(file, "OUTPUT") else "sr"


def caution(file: Path) -> str | None:
    """What is said of all that model ``file`` makes: CAUTION, if its constant PERCEPTUAL is true; else nothing."""
    return CAUTION if has(file, "PERCEPTUAL") and literal(file, "PERCEPTUAL") else None


def fields(file: Path, name: str) -> dict[str, str]:
    """Field names of dataclass ``name`` in module ``file`` and their annotations as text."""
    for node in tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            rows = [row for row in node.body if isinstance(row, ast.AnnAssign) and isinstance(row.target, ast.Name)]
            return {row.target.id: ast.unparse(row.annotation) for row in rows if isinstance(row.target, ast.Name)}
    raise ValueError(f"{file.name} has no class {name}; a plug-in must state it")


def summary(module: str, function: str) -> str:
    """The first docstring line of ``function`` of an emsr ``module``."""
    file = PACKAGE.parent / Path(*module.split(".")).with_suffix(".py")
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def fits(value: object, annotation: str) -> bool:
    """Whether a value read from YAML is of the annotated type: int, float, str, bool, None, a tuple of one of these."""
    if annotation.startswith("Literal["):
        return value in ast.literal_eval(f"({annotation.removeprefix('Literal[').removesuffix(']')},)")
    if " | " in annotation:
        return any(fits(value, part) for part in annotation.split(" | "))
    if annotation.startswith("tuple["):
        inner = annotation.removeprefix("tuple[").removesuffix("]").split(",")[0].strip()
        return isinstance(value, list | tuple) and all(fits(item, inner) for item in value)
    if annotation == "None":
        return value is None
    if annotation == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return type(value).__name__ == annotation
