"""What a person sees while a run goes on: one bar with the stage named; nothing but the result when not a terminal."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.errors import pipeline_cause

T = TypeVar("T")
#: Where the output goes to a file or a pipe, a row of a table stays on one line.
WIDTH = 250

#: What is printed: all, errors alone (`tandem --quiet`), or nothing (the Python API where it was not asked to).
Printed = Literal["all", "errors", "nothing"]
_PRINTED: ContextVar[Printed] = ContextVar("printed", default="all")


@contextmanager
def printing(printed: Printed) -> Iterator[None]:
    """Within the block, `echo` and `track` print no more than this."""
    token = _PRINTED.set(printed)
    try:
        yield
    finally:
        _PRINTED.reset(token)


def shown(progress: bool) -> AbstractContextManager[None]:
    """For a function of the Python API: print nothing unless asked to."""
    return printing(_PRINTED.get() if progress else "nothing")


@contextmanager
def library_log() -> Iterator[None]:
    """Within the block, what libraries log and warn of is shown on stderr."""
    root, handler = logging.getLogger(), logging.StreamHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)


def track(items: Iterable[T], total: int, stage: str) -> Iterator[T]:
    """Pass the items on while a bar on stderr shows how many of them there were."""
    console = Console(stderr=True)
    parts = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    hidden = not console.is_terminal or _PRINTED.get() != "all"
    with Progress(*parts, console=console, disable=hidden, transient=True) as progress:
        task = progress.add_task(stage, total=total)
        for item in items:
            progress.advance(task)
            yield item


def quiet_libraries() -> None:
    """Keep from the person what MONAI says, each time, of a GPU codec that Tandem does not use, and of log files."""
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
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
        if pipeline_cause(error) is None:
            raise
        _end(type(error), error, error.__traceback__)


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    known = pipeline_cause(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
        return
    echo(str(known), error=True)
    sys.exit(2)


def echo(text: str, error: bool = False) -> None:
    """Print one line for the person at the terminal: results on stdout, errors on stderr."""
    if _PRINTED.get() in (("nothing",) if error else ("nothing", "errors")):
        return
    console = Console(stderr=error, soft_wrap=True, highlight=False)
    # a file's name need not be text, nor the terminal's encoding hold it
    console.print(text.encode(console.encoding, "backslashreplace").decode(console.encoding), markup=False)


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)
