"""How long child processes take: many headers, one small file, compressed slices, and the start of a registration.

    python -m benchmarks.children

It prints one line of JSON, seconds. To compare two versions, run it in each in turns.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.pixels import stored_values
from pipeline.errors import CaseError
from pipeline.registration import process
from pipeline.simulation.dicom import write_series
from tests.phantoms.phantom import position_phantom

REPEATS, FILES, DECODED = 3, 2000, 60


def best_s(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The least that some calls took: other programs only ever add to it."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return round(min(found), 3)


def times(place: Path) -> dict[str, float]:
    """What each use of a child takes, in seconds."""
    write_series(position_phantom(shape=(16, 16, FILES)), place / "many")
    write_series(position_phantom(shape=(16, 16, 2)), place / "few")
    for path in write_series(position_phantom(shape=(512, 512, DECODED)), place / "packed"):
        packed = dcmread(path)
        packed.compress(JPEG2000Lossless, generate_instance_uid=False)
        packed.save_as(path, enforce_file_format=True)
    (series,) = scan(place / "packed", ()).series
    return {
        f"headers of {FILES} files": best_s(lambda: scan(place / "many", ())),
        "headers of 2 files": best_s(lambda: scan(place / "few", ())),
        f"{DECODED} slices, JPEG 2000": best_s(lambda: list(stored_values(series.instances))),
        "1 slice, JPEG 2000": best_s(lambda: list(stored_values(series.instances[:1]))),
        "first registration's start": best_s(lambda: empty_request(place), 1),
        "next registration's start": best_s(lambda: empty_request(place)),
    }


def empty_request(place: Path) -> None:
    """An empty request fails as soon as its child has begun."""
    with contextlib.suppress(CaseError):
        process.registrar().run(place, 1, 100.0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(times(Path(name))))
