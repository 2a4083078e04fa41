"""What a person sees while a run goes on: one bar with the stage named; nothing but the result when not a terminal."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.errors import pipeline_cause

T = TypeVar("T")


def track(items: Iterable[T], total: int, stage: str) -> Iterator[T]:
    """Pass the items on while a bar on stderr shows how many of them there were."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(stage, total=total)
        for item in items:
            progress.advance(task)
            yield item


def quiet_libraries() -> None:
    """Keep from the person what MONAI says of a GPU codec that Tandem does not use, each time a reader is made."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


def end_plainly() -> None:
    """From now on a `PipelineError` that ends the program says its sentence, with exit code 2, and no traceback.

    For bundles, which MONAI builds and runs: what is wrong with a configuration shows while it is built, before any
    code of ours could catch it. A program that has a hook of its own for its last error keeps it.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _end


@contextmanager
def plainly() -> Iterator[None]:
    """The same for a block: what is wrong with the input says its sentence, and the program ends with exit code 2.

    Raises:
        SystemExit: 2.
    """
    try:
        yield
    except Exception as error:
        known = pipeline_cause(error)
        if known is None:
            raise
        echo(str(known), error=True)
        sys.exit(2)


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    known = pipeline_cause(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
        return
    echo(str(known), error=True)
    sys.exit(2)


def echo(text: str, error: bool = False) -> None:
    """Print one line for the person at the terminal: results on stdout, errors on stderr."""
    Console(stderr=error, soft_wrap=True, highlight=False).print(text, markup=False)
