"""A run is killed at every write point and at random moments, and its disk is full at every size of a file."""

from __future__ import annotations

import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from pipeline.store.artifacts import FORMATS
from tests.run.everything import require_nothing_wrong, run, save_one, tree, work
from tests.run.wounds import HOWS, Death, FullDisk, Moment, in_child, points

KILLS, OFFSETS = 20, 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one case, to which another one comes."""
    out = tmp_path_factory.mktemp("begun") / "out"
    assert in_child(partial(run, out, ("case-a",))) == 0
    return out


@pytest.fixture(scope="module")
def truth(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the undisturbed run makes."""
    out = tmp_path_factory.mktemp("truth") / "out"
    shutil.copytree(begun, out)
    assert in_child(partial(work, out)) == 0
    return tree(out)


def survives(out: Path, begun: Path, truth: dict[str, str]) -> None:
    """Nothing wrong counts as done; the next run does the rest, and not again what was done."""
    require_nothing_wrong(out, truth)
    assert in_child(partial(work, out)) == 0
    assert tree(out) == truth
    kept = "cases/case-a/ingest/record.json"
    assert (out / kept).stat().st_mtime_ns == (begun / kept).stat().st_mtime_ns


@pytest.mark.parametrize("how", HOWS)
def test_a_death_at_every_write_point(how: str, begun: Path, truth: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "counted")
    names = points(partial(work, tmp_path / "counted"), tmp_path / "points.txt")
    assert len(names) >= 3 * (len(FORMATS) + 4)  # each is flushed, named, and its folder flushed; record, three tables
    for at in range(len(names)):
        out = tmp_path / "out"
        shutil.copytree(begun, out)
        assert in_child(partial(work, out), Death(at, how)) == -signal.SIGKILL
        survives(out, begun, truth)
        shutil.rmtree(out)


def test_deaths_at_random_moments(begun: Path, truth: dict[str, str], tmp_path: Path) -> None:
    chance, killed = random.Random(19), 0
    shutil.copytree(begun, tmp_path / "timed")
    started = time.perf_counter()
    in_child(partial(work, tmp_path / "timed"))
    seconds = time.perf_counter() - started
    for number in range(KILLS):
        out = tmp_path / str(number)
        shutil.copytree(begun, out)
        killed += in_child(partial(work, out), Moment(chance.uniform(0, seconds))) != 0
        survives(out, begun, truth)
    assert killed >= KILLS // 2


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_short_is_never_there(kind: str, tmp_path: Path) -> None:
    assert in_child(partial(save_one, tmp_path / "whole", kind)) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    size = whole.stat().st_size
    for number in range(OFFSETS):
        folder = tmp_path / str(number)
        assert in_child(partial(save_one, folder, kind), FullDisk(size * number // OFFSETS)) == 1
        assert not [path for path in folder.glob("*") if not path.name.startswith(".tmp-")]
    folder = tmp_path / "all but one"
    assert in_child(partial(save_one, folder, kind), FullDisk(size - 1)) == 1
    assert in_child(partial(save_one, folder, kind)) == 0
    assert (folder / whole.name).read_bytes() == whole.read_bytes()


def test_a_disk_that_is_full_stops_a_run_that_goes_on_when_there_is_room(
    begun: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    largest = max(path.stat().st_size for path in begun.rglob("*") if path.is_file())
    for number in range(OFFSETS):
        out = tmp_path / str(number)
        shutil.copytree(begun, out)
        in_child(partial(work, out), FullDisk(largest * number // OFFSETS))
        survives(out, begun, truth)
