"""What may stand in no file of the package or the workflow: what unpickles, evaluates text, or asks a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from project import ROOT

# by its whole name, however it was imported, called or only named
FORBIDDEN = re.compile(
    r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)(\.(load|loads|open|Unpickler).*)?"
    r"|pandas\.read_pickle|yaml\.(load|load_all|unsafe_load|unsafe_load_all|full_load|full_load_all)"
    r"|yaml\.\w*(Unsafe|Full)?Loader|(builtins\.)?(eval|exec|compile|__import__|__builtins__)"
    r"|os\.(system|popen|exec\w+|spawn\w+)|subprocess\.(getoutput|getstatusoutput)|asyncio\.create_subprocess_shell"
    r"|tempfile\.mktemp|torch\.(jit|serialization)\.(load|_load|_legacy_load)|torch\.hub\.\w+"
)
SAFE = {"yaml.CSafeLoader", "yaml.SafeLoader"}  # which `config_files.py` makes stricter
MODULES = re.compile(r"pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve|builtins")
WORDS = {"allow_pickle", "pickle_module", "shell", "weights_only"}  # that hide in a dictionary of keywords


def names(tree: ast.AST) -> dict[str, str]:
    """What a file calls things, and what they are."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def whole(node: ast.AST, known: dict[str, str]) -> str:
    """The dotted name of an expression, however its first part was imported."""
    first, _, rest = ast.unparse(node).partition(".")
    return f"{known.get(first, first)}.{rest}".rstrip(".")


def forbidden(text: str) -> list[str]:
    """What is called or named that runs what a file says, or a shell."""
    tree = ast.parse(text)
    known, loaded = names(tree), set[int]()
    return [ast.unparse(node) for node in ast.walk(tree) if _bad(node, known, loaded)]


def _bad(node: ast.AST, known: dict[str, str], loaded: set[int]) -> bool:
    if isinstance(node, ast.Import):
        return any(MODULES.fullmatch(alias.name.split(".")[0]) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        named = {alias.name for alias in node.names} - {"UnpicklingError"}  # what weights that are none raise
        return bool(named) and bool(MODULES.fullmatch((node.module or "").split(".")[0]))
    if isinstance(node, ast.Dict):
        return any(isinstance(key, ast.Constant) and key.value in WORDS - {"weights_only"} for key in node.keys)
    if isinstance(node, ast.Call):
        return _bad_call(node, known, loaded)
    if isinstance(node, ast.Name | ast.Attribute):
        name = whole(node, known)
        unsafe = name == "torch.load" and id(node) not in loaded  # handed on, it is called without weights_only
        return unsafe or (name not in SAFE and bool(FORBIDDEN.fullmatch(name)))
    return False


def _bad_call(call: ast.Call, known: dict[str, str], loaded: set[int]) -> bool:
    name, said = whole(call.func, known), {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "torch.load" and said.get("weights_only") == "True" and "pickle_module" not in said:
        loaded.add(id(call.func))
    literal = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    imported = name.endswith(("import_module", "run_module", "run_path"))
    return (
        (said.get("shell", "False") != "False" or said.get("verify") == "False")
        or (said.get("allow_pickle", "False") != "False" or name.endswith((".chmod", ".umask")))
        or (name.startswith("subprocess.") and len(call.args) > 1)  # the ninth of them is shell
        or (imported and any(MODULES.fullmatch(str(value).split(".")[0]) for value in literal))
    )


@pytest.mark.parametrize(
    "text",
    [
        "import pickle; pickle.load(f)",
        "from pickle import loads as read; read(b)",
        "map(pickle.loads, files)",
        "read = pickle.Unpickler; read(f)",
        "import_module('pickle').loads(b)",
        "import yaml as y; y.load(f, Loader=y.SafeLoader)",
        "yaml.UnsafeLoader(text)",
        "eval(text)",
        "__builtins__['eval'](text)",
        "list(map(eval, texts))",
        "subprocess.run(words, shell=True)",
        "subprocess.run(words, shell=how)",
        "subprocess.run(words, **{'shell': True})",
        "subprocess.Popen(words, -1, None, None, None, None, None, True, True)",
        "asyncio.create_subprocess_shell(words)",
        "import torch; torch.load(f)",
        "from torch import load; load(f, weights_only=False)",
        "torch.load(f, weights_only=how)",
        "torch.load(f, weights_only=True, pickle_module=p)",
        "read = torch.load; read(f, weights_only=True)",
        "torch.serialization.load(f, weights_only=True)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, **{'allow_pickle': True})",
        "os.system(words)",
        "requests.get(url, verify=False)",
        "file.chmod(0o666)",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert forbidden(text)


@pytest.mark.parametrize("text", ["torch.load(f, weights_only=True)", "np.load(f)", "subprocess.run(words)"])
def test_the_search_leaves(text: str) -> None:
    assert not forbidden(text)


FILES = [file for folder in ("src", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))]
WORKFLOW = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]


def test_no_file_unpickles_evaluates_or_asks_a_shell() -> None:
    assert len(FILES) > 200
    assert {file.name: found for file in FILES if (found := forbidden(file.read_text()))} == {}
    loads = [line for file in FILES for line in file.read_text().splitlines() if "torch.load(" in line]
    assert len(loads) >= 2, "published weights and states of trainings are read so"


def expressions(text: str) -> Iterator[str]:
    """The Python of a file of rules that can be parsed on its own: lines that follow a keyword, and whole lines."""
    for line in text.splitlines():
        for part in (line.strip().rstrip(","), line.partition("=")[2].strip().rstrip(",")):
            try:
                ast.parse(part)
            except SyntaxError:
                continue
            yield part


def test_no_rule_does_either() -> None:
    parts = [part for file in WORKFLOW for part in expressions(file.read_text())]
    assert len(parts) > 300
    assert [found for part in parts for found in forbidden(part)] == []
    words = re.compile(r"\b(pickle|eval|exec|os\.system|popen|yaml\.load|torch\.load|shell=True)\b")
    assert [file.name for file in WORKFLOW if words.search(file.read_text())] == []
