"""Each planted fault is refused with its code, or read right with a note; nothing is read wrong without a word.

The table is `tests.phantoms.fault_table`; the oracle is the position phantom: a voxel's value tells where it lies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pipeline.dicom.headers.cache
import pipeline.dicom.headers.scan
from pipeline.cases import Series
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.volume import read as read_pixels
from pipeline.dicom.series.gate import judge
from pipeline.dicom.series.split import merge, split
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import write_series
from pipeline.volumes import affine_of
from tests.phantoms.fault_table import TABLE
from tests.phantoms.oracle import FloatArray, judge_volumes
from tests.phantoms.phantom import position_phantom
from tests.phantoms.planted import Planted, in_unit_of_role

#: Most phantoms hold no air, and that they do not is noted of every CT.
UNASKED = {"N_NO_AIR"}


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts what the bar is, and says so at the end: both have to be 0."""
    count: Counter[str] = Counter()
    yield count
    line = f"\n{count['series']} series: silently wrong {count['wrong']}, usable volumes rejected {count['rejected']}"
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(line)


def read(folder: Path) -> tuple[list[Series], set[str]]:
    """The series, asked for in HU or Bq/ml; where there is none, the codes of the files.

    What the cache of headers keeps of any of them gives the same again, and no file is read.
    """
    cache = folder.with_name(f"{folder.name}.jsonl")
    tree = scan(folder, cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.dicom.headers.scan, "_read_all", lambda paths, *_: iter(paths))  # no header
        assert scan(folder, cache=cache) == tree
    parts = merge([part for found in tree.series for part in split(found)])
    series = [in_unit_of_role(judge(part)) for part in parts]
    return series, {item.fault.code for item in tree.rejected if item.fault is not None and not series}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now are kept, too."""
    monkeypatch.setattr(pipeline.dicom.headers.cache, "SETTLED_S", 0.0)


def volumes_of(found: list[Series]) -> tuple[list[tuple[FloatArray, FloatArray]], set[str]]:
    """The volumes, and the notes of what their pixels showed."""
    readings = [read_pixels(series) for series in found if series.fault is None]
    images = [reading.image for reading in readings]
    volumes = [(np.asarray(image.numpy()[0], dtype=float), affine_of(image)) for image in images]
    return volumes, {note for reading in readings for note in reading.notes}


def codes_of(found: list[Series]) -> set[str]:
    """Codes of the series that are set aside; notes of those that are not."""
    refused = {series.fault.code for series in found if series.fault is not None}
    return refused | {note for series in found if series.fault is None for note in series.notes}


@pytest.mark.parametrize("item", TABLE, ids=lambda item: item.title)
def test_fault(tmp_path: Path, tally: Counter[str], item: Planted) -> None:
    truths = item.write(tmp_path)
    tally["series"] += 1
    found, codes = read(tmp_path)
    codes |= codes_of(found)
    try:
        volumes, seen = volumes_of(found)
    except QuarantineError as error:  # some faults show in the pixels alone
        volumes, seen = [], {error.code}
    codes |= seen
    judgement = judge_volumes(volumes, truths) if volumes else "refused"
    tally["wrong"] += judgement in ("wrong", "incomplete")
    tally["rejected"] += judgement == "refused" and item.verdict != "refused"
    assert judgement == ("refused" if item.verdict == "refused" else "right"), codes
    assert codes - UNASKED == item.codes
    for series in (series for series in found if series.fault is not None):
        with pytest.raises(QuarantineError, match=series.fault.code if series.fault else ""):
            read_pixels(series)


def test_the_clean_phantom_keeps_its_grid_and_whole_numbers(tmp_path: Path) -> None:
    write_series(position_phantom(), tmp_path)
    ((series,), _) = read(tmp_path)
    volume = read_pixels(series).image
    assert volume.shape == (1, 32, 28, 20)
    assert volume.numpy().dtype == "int16"
    assert affine_of(volume) == pytest.approx(affine_of(position_phantom()), abs=1e-6)


def test_nothing_is_silently_wrong_and_nothing_usable_rejected(tally: Counter[str]) -> None:
    """Runs last: over all series of the table together."""
    assert (tally["wrong"], tally["rejected"]) == (0, 0)
