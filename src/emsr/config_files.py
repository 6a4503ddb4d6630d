"""config.yaml and overlays as files: read within limits, and refused where YAML would make something else of them.

A few lines of YAML can stand for gigabytes (aliases of aliases), of two equal keys the last one wins, 010 is 8 and
4:30 is 270, and Snakemake runs Python that a config brings if that asks for it. Each is one line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from emsr import places

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

MOST_BYTES = 2**20
MOST_VALUES = 100_000  # keys and values, what aliases repeat counted each time
DEEPEST = 20
# YAML 1.1: numbers of base 8, and of base 60
SURPRISES = re.compile(r"[-+]?0[0-7_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
PROGRAM = "__use_yte__"  # the key by which Snakemake evaluates expressions in a config


def read(file: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; ValueError or OSError, in one line, for what is none, or no harmless one."""
    text = _text(file)
    try:
        _check_events(file, text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            _check_keys(file, node)
            values = loader.construct_document(node) if node else {}
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(file) in str(error):
            raise
        raise ValueError(f"{file} is not YAML ({_said(error)}): mend it there") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds no keys with values: start from config.yaml")
    if PROGRAM in values:
        raise ValueError(f"{file}: {PROGRAM} makes Snakemake run Python that stands in it: write values instead")
    return values


def stop_unless_harmless(*files: str | Path) -> None:
    """As `read` of the files that there are, for Snakemake: a mistake ends the program with one line."""
    try:
        for file in map(Path, files):
            if file.exists():
                read(file)
    except (ValueError, OSError) as error:
        raise SystemExit(f"emsr: error: {error}") from None


def _text(file: Path) -> str:
    """The text of a file that is not too long."""
    if fault := places.fault(file):
        raise FileNotFoundError(f"config {file} {fault}")
    if file.is_dir():
        raise ValueError(f"config {file} is a folder: name a file in it")
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES} bytes, so it is no config: name another file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not YAML ({_said(error)}): save it as UTF-8 text") from None


def _check_events(file: Path, text: str) -> None:
    """ValueError for what is too deep or too much, or a number that is not what it looks like.

    Nothing is built: events come one by one.
    """
    sizes: dict[str, int] = {}  # values that an anchor stands for
    open_parts: list[tuple[str | None, int]] = []  # anchor, and values before it
    count = 0
    for event in yaml.parse(text, Loader=Loader):
        where = f"{file}, line {_line(event)}"
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"{where}: alias *{event.anchor} stands for nothing, or lies in what it stands for")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
            if event.implicit[0] and SURPRISES.fullmatch(event.value):
                raise ValueError(f"{where}: {event.value} is another number in YAML: write it decimal, or in quotes")
        elif isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_parts.pop()
            sizes |= {anchor: count - before} if anchor else {}
        if len(open_parts) > DEEPEST:
            raise ValueError(f"{where}: more than {DEEPEST} levels of keys, so it is no config: name another file")
        if count > MOST_VALUES:
            raise ValueError(f"{where}: more than {MOST_VALUES} values with its aliases, so it is no config")


def _check_keys(file: Path, root: Node | None) -> None:
    """ValueError where a mapping has a key twice."""
    for node in _nodes(root):
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ValueError(f"{file}, line {_line(key)}: key {key.value!r} stands there twice: remove one")
                seen.add((key.tag, key.value))


def _nodes(root: Node | None) -> Iterator[MappingNode]:
    """Every mapping, once."""
    todo, seen = [root], set[int]()
    while todo:
        node = todo.pop()
        if isinstance(node, ScalarNode) or node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            yield node
            todo += [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            todo += node.value


def _line(part: yaml.Event | Node) -> int:
    """The line that a part of a file begins in."""
    return part.start_mark.line + 1 if part.start_mark else 0


def _said(error: BaseException) -> str:
    """What a parser said, in one line, without what terminals obey."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(str(error).split()))[:300]
