"""What a person sees while a run goes on: one bar with the stage named; nothing but the result when not a terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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


def say(text: str, error: bool = False) -> None:
    """Print one line for the person at the terminal: results on stdout, errors on stderr."""
    Console(stderr=error, soft_wrap=True, highlight=False).print(text, markup=False)
