"""A program for the tests of stopping: `tandem` with a stage of one quick case and others that never end."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli import main
from pipeline.run.loading import Loaded
from pipeline.run.plan import Plan
from pipeline.run.stage import Stage
from tests.run.stand_in import Cases, put_in_place

CASES = ("case-1", "case-2", "case-3")


@dataclass
class Slow:
    """Says in a file that it works on a case; never comes back unless it is the first or the marker `go` lies there.

    Args:
        folder: where it says so.
        deaf: even an interruption does not end it.
    """

    folder: Path
    deaf: bool

    def __call__(self, case: dict[str, Any]) -> dict[str, Any]:
        (self.folder / f"{case['case_id']}-{os.getpid()}").touch()
        until = time.monotonic() + 120
        while case["case_id"] != CASES[0] and time.monotonic() < until and not (self.folder / "go").exists():
            try:
                time.sleep(1)
            except BaseException:
                if not self.deaf:
                    raise
        return case


def load(_name: str, plan: Plan) -> Loaded:
    """In the place of a bundle's stage."""
    chain = Slow(plan.dataset_dir, os.environ["HOW"] == "deaf")
    stage = Stage("ingest", chain, {}, {}, plan.output_dir)
    return Loaded(stage, Cases(CASES), ())


if __name__ in ("__main__", "__mp_main__"):  # also in the processes that it starts
    put_in_place(load)

if __name__ == "__main__":
    sys.argv[0] = "tandem"
    main()
