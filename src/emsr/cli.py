"""Command line: a table of verbs, parsers made from signatures, one line for every mistake of a user."""

from __future__ import annotations

import argparse
import errno
import importlib
import inspect
import json
import logging
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emsr import durable, plugins
from emsr.progress import UnfinishedError

VERBS = {
    "grow": "emsr.steps.data",
    "ingest": "emsr.steps.data",
    "degrade": "emsr.steps.data",
    "enlarge": "emsr.steps.data",
    "register": "emsr.steps.registration",
    "register-labels": "emsr.steps.registered_labels",
    "train": "emsr.steps.train",
    "allocate": "emsr.steps.superresolve",
    "superresolve": "emsr.steps.superresolve",
    "stitch": "emsr.steps.superresolve",
    "allocate-affinities": "emsr.steps.affinities",
    "affinities": "emsr.steps.affinities",
    "prove-affinities": "emsr.steps.affinities",
    "allocate-fragments": "emsr.steps.fragments",
    "fragments": "emsr.steps.fragments",
    "prove-fragments": "emsr.steps.fragments",
    "agglomerate": "emsr.steps.agglomeration",
    "choose-threshold": "emsr.steps.threshold",
    "segment": "emsr.steps.segment",
    "score-segments": "emsr.steps.segment_scores",
    "discard": "emsr.steps.discard",
    "score": "emsr.steps.score",
    "report": "emsr.steps.score",
    "import-weights": "emsr.commands.import_weights",
    "rescale": "emsr.steps.rescale",
    "export": "emsr.commands.export",
    "view": "emsr.commands.view",
    "clean": "emsr.commands.clean",
    "check": "emsr.commands.check",
    "plan": "emsr.commands.plan",
    "status": "emsr.commands.status",
    "verify": "emsr.commands.verify",
    "repair": "emsr.commands.repair",
    "run": "emsr.driver.run",
}
USER_MISTAKES = (ValueError, OSError)
_ALLOW, _FREE = "mend its permissions, or name another place", "free some, and run again: what is finished is kept"
MENDS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FREE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n), and run again"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "correct the path"),
    errno.ELOOP: "mend the links on the way there",
}
UNFINISHED = os.EX_TEMPFAIL  # 75: start it again
STOPPED = 128 + signal.SIGINT  # 130: as shells say of what Ctrl+C ended


def _function(verb: str) -> tuple[str, str]:
    """Module and function name of ``verb``."""
    return VERBS[verb], verb.replace("-", "_")


def _convert(annotation: Any) -> Callable[[str], Any]:
    """What turns a word of the command line into a value of the annotated type."""
    annotation = _stated(annotation)
    if annotation is dict or typing.get_origin(annotation) is dict:
        return _settings
    return annotation if callable(annotation) else str


def _stated(annotation: Any) -> Any:
    """The type of a value that is given: of an annotation X | None the X."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def _settings(text: str) -> dict[str, Any]:
    """Settings as one JSON argument, or @FILE that holds it."""
    try:
        values = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"settings cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"settings are no JSON: {error}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"settings must be a JSON object, not {type(values).__name__}")
    return values


def _add(parser: argparse.ArgumentParser, parameter: inspect.Parameter, annotation: Any) -> None:
    """One argument: parameters before * are positional, keyword-only ones are options; *words take what is left."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return
    name = parameter.name
    flag = [f"--{name.replace('_', '-')}"] if parameter.kind is parameter.KEYWORD_ONLY else [name]
    required, annotation = parameter.default is parameter.empty, _stated(annotation)
    if annotation is bool:
        parser.add_argument(*flag, action="store_true", dest=name)
    elif typing.get_origin(annotation) is list:
        parser.add_argument(*flag, nargs="*", type=_convert(typing.get_args(annotation)[0]))
    elif parameter.kind is parameter.KEYWORD_ONLY:
        default = None if required else parameter.default
        parser.add_argument(*flag, dest=name, required=required, default=default, type=_convert(annotation))
    else:
        parser.add_argument(*flag, type=_convert(annotation))


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of ``verb``, made from its function's signature and docstring."""
    module, name = _function(verb)
    function = getattr(importlib.import_module(module), name)
    parser = argparse.ArgumentParser(
        prog=f"emsr {verb}",
        description=inspect.getdoc(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        _add(parser, parameter, hints[parameter.name])
    parser.add_argument("--log", type=Path, help="also write log lines to this file")
    parser.add_argument("--traceback", action="store_true", help="show where in the code a mistake was noticed")
    parser.set_defaults(function=function)
    return parser


def _overview() -> str:
    """The text of ``emsr --help``."""
    rows = [f"  {verb:<15} {plugins.summary(*_function(verb))}" for verb in VERBS]
    return "\n".join(["usage: emsr VERB [ARGUMENT ...]    emsr VERB --help", "", *rows])


class _Line(logging.Formatter):
    """``emsr: error: what went wrong`` for people; tracebacks stay in the log file."""

    def format(self, record: logging.LogRecord) -> str:
        return f"emsr: {record.levelname.lower()}: {record.getMessage()}"


def _log_to(file: Path | None) -> None:
    """Log lines go to ``file``; warnings and worse to standard error too."""
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.WARNING)
    console.setFormatter(_Line())
    handlers: list[logging.Handler] = [console]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, mode="a", encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers, force=True
    )


def _shown(error: BaseException) -> str:
    """What an error says in one line, without what terminals obey; of what the system refused, with the mend."""
    said = str(error)
    if isinstance(error, OSError) and error.errno and error.strerror:
        where = (
            f"{os.fsdecode(error.filename)} cannot be used" if isinstance(error.filename, str | bytes) else "stopped"
        )
        said = f"{where} ({error.strerror}): {MENDS.get(error.errno, 'mend that, and run again')}"
    return "".join(one if one.isprintable() else "?" for one in " ".join(said.split()))


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, 1 after a mistake in the input, 2 after one on the command line, 75 to go on later,
    130 after Ctrl+C.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_overview() + "\n")
        return 0
    if words[0] == "--version":
        sys.stdout.write(importlib.import_module("importlib.metadata").version("emsr") + "\n")
        return 0
    if words[0] not in VERBS:
        _log_to(None)
        logging.getLogger("emsr").error(plugins.unknown("verb", words[0], VERBS))
        return 2
    try:
        parser = parser_of(words[0])
        arguments, rest = parser.parse_known_args(words[1:])
        kinds = [parameter.kind for parameter in inspect.signature(arguments.function).parameters.values()]
        if rest and inspect.Parameter.VAR_POSITIONAL not in kinds:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return _run(vars(arguments), rest)
    except KeyboardInterrupt:
        logging.getLogger("emsr").error("stopped by Ctrl+C: start it again, what is finished is kept")
        return STOPPED


def _run(arguments: dict[str, Any], rest: Sequence[str]) -> int:
    """Call the verb's function; a user's mistake becomes one line."""
    function, traceback = arguments.pop("function"), arguments.pop("traceback")
    log = arguments.pop("log")
    _log_to(None)
    try:
        _log_to(log)
        if (workers := arguments.get("workers")) is not None and workers < 1:
            raise ValueError(f"workers {workers} make nothing: state at least 1")
        function(*rest, **arguments)
        if isinstance(arguments.get("out"), Path):
            durable.sweep(arguments["out"].parent)
    except USER_MISTAKES as error:
        if traceback:
            raise
        logging.getLogger("emsr").info("where it was noticed", exc_info=True)
        logging.getLogger("emsr").error(_shown(error))
        return 1
    except MemoryError as error:
        if traceback:
            raise
        logging.getLogger("emsr").info("where it was noticed", exc_info=True)
        said = f" ({_shown(error)})" if str(error) else ""
        logging.getLogger("emsr").error("memory ran out%s: take fewer workers, or smaller shards", said)
        return 1
    except UnfinishedError as stopped:
        logging.getLogger("emsr").warning(str(stopped))
        return UNFINISHED
    return 0


if __name__ == "__main__":
    sys.exit(main())
