"""Run `tandem` as a person would: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from pipeline.cli import app
from tests import warm


@dataclass(frozen=True)
class Run:
    """A finished process."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path) -> list[str]:
    """The command line of `tandem`, with this interpreter."""
    return [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    """The environment with a key folder of the test's own."""
    return os.environ | {"TANDEM_HOME": str(home), "COLUMNS": "250"}


def call(*arguments: str | Path) -> Run:
    """Run `tandem` in this process, which spares the imports; for what ends before the work begins."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return Run(done.exit_code, done.stdout, done.stderr)


def tandem(home: Path, *arguments: str | Path) -> Run:
    """Run `tandem` to its end, in a process of its own that spares the imports."""
    done = warm.run("pipeline.cli", *arguments, env=environment(home))
    return Run(done.returncode, done.stdout, done.stderr)


def started_tandem(home: Path, *arguments: str | Path) -> Run:
    """The same in a process that starts from nothing, as a person's does."""
    done = subprocess.run(command(*arguments), env=environment(home), capture_output=True, text=True, check=False)
    return Run(done.returncode, done.stdout, done.stderr)
