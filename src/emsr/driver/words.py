"""What the words of a command line ask of snakemake, by snakemake's own parser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from emsr import config_files
from emsr.settings import Settings

OTHER_WORK = (  # what snakemake does in place of a run
    "unlock", "lint", "summary", "detailed_summary", "dag", "rulegraph", "filegraph", "d3dag", "list_rules",
    "list_target_rules", "report", "archive", "cleanup_metadata", "delete_all_output", "delete_temp_output",
    "list_changes", "list_input_changes", "list_params_changes", "list_untracked", "touch", "containerize",
    "export_cwl", "generate_unit_tests", "print_compilation", "conda_create_envs_only", "conda_cleanup_envs",
    "container_cleanup_images", "list_conda_envs", "edit_notebook", "draft_notebook",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A run of snakemake as the user asks for it: the words, and what its parser makes of them and of a profile."""

    words: tuple[str, ...]
    parsed: argparse.Namespace
    folder: Path  # that paths in the config are relative to
    configs: tuple[Path, ...]  # in the order in which they are laid over each other

    @classmethod
    def read(cls, words: Sequence[str]) -> Asked:
        """ValueError, in one line, for words that snakemake does not know or that ask for something else than a run."""
        given = list(words)
        parsed = _parsed(given)
        if parsed.cores is None and parsed.executor in (None, "local"):
            given = ["--cores", "all", *given]
            parsed = _parsed(given)
        for name in OTHER_WORK:
            if getattr(parsed, name, None) not in (None, False, [], set(), frozenset()):
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"emsr run only runs: for {flag} call snakemake itself, with the same words")
        folder = Path(parsed.directory or ".").resolve()
        own = [Path(path).resolve() for path in parsed.configfile or ()]
        first = [folder / "config.yaml"] if (folder / "config.yaml").exists() or not own else []
        return cls(tuple(given), parsed, folder, (*first, *own))

    @property
    def dry(self) -> bool:
        """Whether nothing is to be run."""
        return bool(self.parsed.dryrun)

    @property
    def slurm(self) -> bool:
        return bool(self.parsed.executor == "slurm")

    @property
    def targets(self) -> list[str]:
        """The files and rules that are asked for; empty for all."""
        return [str(target) for target in self.parsed.targets or ()]

    def option(self, name: str) -> Any:
        """An option of the executor, None where neither the words nor a profile state it."""
        value = getattr(self.parsed, name, None)
        return value if isinstance(value, str | int | float) else None

    def settings(self) -> Settings:
        """The config that snakemake will see; to be called in `folder`. ValueError or OSError, in one line."""
        from snakemake.cli import parse_config
        from snakemake.utils import update_config

        from emsr.config import parse

        values: dict[str, Any] = {}
        for file in self.configs:
            update_config(values, config_files.read(file))
        update_config(values, parse_config(self.parsed.config))
        return Settings(parse(values))

    @property
    def jobs(self) -> int | None:
        """The number of jobs of a volume that words or a profile set."""
        scatter = self.parsed.set_scatter
        return int(scatter["job"]) if scatter and "job" in scatter else None

    def line(self, extra: Sequence[str], targets: Sequence[str] | None = None) -> list[str]:
        """The words of one call of snakemake, with `extra` before them; with other `targets`, if some are given."""
        if targets is None:
            return [*extra, *self.words]
        words = [word for word in self.words if word != "--"]
        for target in reversed(self.targets):
            words.pop(len(words) - 1 - words[::-1].index(target))
        return [*extra, *words, "--", *targets]


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    from snakemake.cli import parse_args
    from snakemake.exceptions import CliException
    from snakemake_interface_common.exceptions import ApiError

    said = StringIO()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(said):
            parsed: argparse.Namespace = parse_args(list(words))[1]
    except SystemExit as ended:
        if not ended.code:
            raise ValueError("emsr run only runs: call snakemake itself for its help and version") from None
        last = (said.getvalue().strip().splitlines() or ["it ended"])[-1]
        raise ValueError(f"snakemake does not take these words ({last}): see snakemake --help") from None
    except (ApiError, CliException, OSError) as error:
        raise ValueError(f"snakemake does not take these words ({error})") from None
    return parsed
