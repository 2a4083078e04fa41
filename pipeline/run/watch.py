"""`tandem status OUT --watch`: how far the run is, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.console import echo
from pipeline.run.events import Follower
from pipeline.run.progress import WORDS, Progress, line_of
from pipeline.store.files import is_held

#: How often a screen is drawn, and a line printed where there is none.
SCREEN_S, LINE_S = 1.0, 10.0


def watch(output_dir: Path) -> None:
    """Show how far a run is until its folder is free: a table drawn anew at a terminal, plain lines elsewhere."""
    console = Console()
    if not console.is_terminal:
        _follow(output_dir, LINE_S, lambda progress: echo(line_of(progress, datetime.now(UTC))), always=False)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        draw = partial(live.update, refresh=True)
        _follow(output_dir, SCREEN_S, lambda progress: draw(screen(progress, datetime.now(UTC))), always=True)


def screen(progress: Progress, now: datetime) -> Group:
    """What is drawn: a row for each stage that has begun, and the line of the one that goes on."""
    table = Table("stage", "cases", "already", *WORDS, box=None, header_style="bold")
    for stage, found in progress.found.items():
        words = (str(found[word] or "-") for word in WORDS)
        table.add_row(stage, f"{found.total()} of {progress.cases.get(stage, 0)}", str(progress.reused[stage]), *words)
    return Group(table, Text(line_of(progress, now)))


def _follow(output_dir: Path, every_s: float, show: Callable[[Progress], object], always: bool) -> None:
    """Show what the log says, `always` or when it says something new, until no run holds the folder."""
    log, progress = Follower(output_dir), Progress()
    shown, due = -every_s, always
    while is_held(output_dir):
        due = progress.take(log.new()) or due
        if due and time.monotonic() - shown >= every_s:
            show(progress)
            shown, due = time.monotonic(), always
        time.sleep(min(SCREEN_S, every_s))
