"""Feed ingest with broken files, and see whether it crashes, hangs, grows or fails in a way that it does not explain.

    .venv/bin/python -m benchmarks.fuzz --count 20000 --seed 1 [--out docs/benchmarks/ingest-fuzz.md] [FOLDER…]

The files come from simulated series, and from the small DICOM files of the folders that are given. Every input is a
series of three slices (one of them broken) or a single broken file. It goes the real way: the headers of the tree are
read, its series taken apart, judged, and those that pass are read as volumes.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unittest import mock

import typer
from pydicom.misc import is_dicom
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from pipeline.cases import Series
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.volume import read
from pipeline.dicom.sandbox import Sandbox
from pipeline.dicom.series.gate import candidates
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms import faults
from tests.phantoms.enhanced import write_enhanced
from tests.phantoms.mutations import MUTATIONS
from tests.phantoms.phantom import position_phantom

BATCH = 400
LARGEST_SOURCE_BYTES = 300_000
SHAPE = (36, 34, 3)  # the least that JPEG 2000 takes with its five wavelet levels
#: A batch that takes longer is a hang: the stacks are printed and the script ends.
HANG_S = 300
#: One source in so many inputs is one of the folders' files where there are any.
FOLDER_SHARE = 3


@dataclass(frozen=True)
class Source:
    """Files of one series; the UID in them is replaced, so that every input is a series of its own."""

    files: tuple[bytes, ...]
    series_uid: bytes

    @property
    def can_be_renamed(self) -> bool:
        """Whether the UID stands in every file as it is (not so in deflated ones) and is long enough for a number."""
        return len(self.series_uid) > 12 and all(self.series_uid in data for data in self.files)

    def renamed(self, number: int) -> tuple[bytes, ...]:
        """The files as those of another series."""
        uid = self.series_uid[:-8] + b"%08d" % (number + 10_000_000)
        return tuple(data.replace(self.series_uid, uid) for data in self.files)


@dataclass(frozen=True)
class Batch:
    """A tree of inputs; for each broken file the name of what was done to it."""

    root: Path
    kinds: dict[Path, str]


@dataclass
class Tally:
    """What became of the inputs."""

    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    growth_mb: float = 0.0
    seconds: float = 0.0


class Kept:
    """Stands in for `Sandbox`: its workers live on from volume to volume, as to start them takes most of the time."""

    boxes: ClassVar[dict[Callable[[Any], Any], Sandbox]] = {}

    def __init__(self, function: Callable[[Any], Any], **_: Any) -> None:
        self.box = self.boxes.setdefault(function, Sandbox(function, timeout_s=20))

    def __enter__(self) -> Sandbox:
        return self.box

    def __exit__(self, *_: object) -> None:
        pass

    @classmethod
    def close(cls) -> None:
        """End the workers."""
        for box in cls.boxes.values():
            box.__exit__()
        cls.boxes.clear()


def main(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of DICOM files to break.")] = None,
    count: Annotated[int, typer.Option(min=1)] = 300,
    seed: int = 1,
    out: Annotated[Path | None, typer.Option(help="Where to write the table.")] = None,
) -> None:
    """Run the inputs and print the table."""
    tally = fuzz(count, seed, folders or [])
    page = report(tally, count, seed, bool(folders))
    print(page)
    if out is not None:
        out.write_text(page, encoding="utf-8")
    sys.exit(bool(tally.unexplained))


def fuzz(count: int, seed: int, folders: Sequence[Path]) -> Tally:
    """Make the inputs from the seed, run them in batches, and watch this process."""
    tally, started = Tally(), time.perf_counter()
    with tempfile.TemporaryDirectory() as place, mock.patch("pipeline.dicom.pixels.pixels.Sandbox", Kept):
        root = Path(place)
        simulated, found = simulated_sources(root / "sources"), folder_sources(folders)
        run_batch(write_batch(root / "warm", 20, random.Random(seed), (simulated, found)), Tally())
        before_mb = peak_mb()
        for start in range(0, count, BATCH):
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            chance = random.Random(f"{seed} {start}")
            run_batch(write_batch(root / "batch", min(BATCH, count - start), chance, (simulated, found)), tally)
        faulthandler.cancel_dump_traceback_later()
        tally.growth_mb = peak_mb() - before_mb
        Kept.close()
    tally.seconds = time.perf_counter() - started
    return tally


def peak_mb() -> float:
    """The most memory that this process has held so far; its children do not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def simulated_sources(root: Path) -> list[Source]:
    """Three slices each: CT and MR, native, compressed, deflated, big endian; and one enhanced file."""
    plain: list[Callable[[Path], Any]] = [lambda folder: folder] * 6
    plain += [faults.deflated, faults.big_endian, faults.implicit]
    compressed = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
    plants = [*plain, *(lambda folder, uid=uid: faults.compressed(folder, uid) for uid in compressed)]
    sources = []
    for number, plant in enumerate(plants):
        header = SeriesHeader(seed="fuzz", modality="MR" if number == 1 else "CT", series_number=number)
        paths = write_series(position_phantom(shape=SHAPE), root / str(number), header)
        plant(root / str(number))
        sources.append(Source(tuple(path.read_bytes() for path in paths), header.series_uid.encode()))
    header = SeriesHeader(seed="fuzz", series_number=99)
    path = write_enhanced([position_phantom(shape=SHAPE)], root / "enhanced", header)
    return [*sources, Source((path.read_bytes(),), header.series_uid.encode())]


def folder_sources(folders: Sequence[Path]) -> list[Source]:
    """The small DICOM files of some folders, each alone; without DICOMDIRs and what belongs to no series."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    small = [path for path in paths if path.stat().st_size <= LARGEST_SOURCE_BYTES and is_dicom(path)]
    headers = []
    for path in small:
        with suppress(NotDicomError):
            headers.append((path, read_header(path)))
    return [Source((path.read_bytes(),), header.series_uid.encode()) for path, header in headers if header.series_uid]


def write_batch(root: Path, count: int, chance: random.Random, sources: tuple[list[Source], list[Source]]) -> Batch:
    """Write inputs, each into a folder of its own, one file of each broken."""
    shutil.rmtree(root, ignore_errors=True)
    simulated, found = sources
    used: set[int] = set()
    kinds: dict[Path, str] = {}
    while len(kinds) < count:
        source = chance.choice(found if found and chance.randrange(FOLDER_SHARE) == 0 else simulated)
        if not source.can_be_renamed:  # two series with one UID in a tree would be judged together
            if id(source) in used:
                continue
            used.add(id(source))
        mutation = chance.choice(MUTATIONS)
        folder = root / f"{len(kinds):05d}"
        folder.mkdir(parents=True)
        broken = chance.randrange(len(source.files))
        for index, data in enumerate(source.renamed(len(kinds))):
            (folder / f"{index}").write_bytes(mutation(data, chance) if index == broken else data)
        kinds[folder / f"{broken}"] = mutation.__name__
    return Batch(root, kinds)


def run_batch(batch: Batch, tally: Tally) -> None:
    """Take a tree of inputs the real way, and note what became of every broken file."""
    outcomes: dict[Path, str] = {}
    for series, verdict in verdicts(batch.root, tally):
        outcomes |= {instance.path: verdict for instance in (*series.instances, *series.rejected)}
    for path, kind in batch.kinds.items():
        tally.kinds[kind] += 1
        tally.verdicts[kind, outcomes.get(path, "no series")] += 1


def verdicts(root: Path, tally: Tally) -> Iterator[tuple[Series, str]]:
    """Every volume of a tree and what became of it: `read`, or the code of its fault."""
    found = timed(tally, lambda: scan(root))
    for instance in found.rejected:
        code = instance.fault.code if instance.fault else ""
        yield Series("", "", "", "", (), (instance,)), code
    for series in timed(tally, lambda: candidates(found.series)):
        try:
            timed(tally, partial(read, series))
            yield series, "read"
        except QuarantineError as error:
            yield series, error.code
        except Exception as error:  # noqa: BLE001 - what is looked for
            tally.unexplained.append(f"{type(error).__name__}: {error}")
            traceback.print_exc()
            yield series, "unexplained"


def timed(tally: Tally, work: Callable[[], Any]) -> Any:
    """Do some work and remember how long the slowest took."""
    started = time.perf_counter()
    try:
        return work()
    finally:
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - started)


def report(tally: Tally, count: int, seed: int, with_folders: bool) -> str:
    """The page of docs/benchmarks/ingest-fuzz.md."""
    sources = "simulated series and real test files" if with_folders else "simulated series"
    codes = sorted({code for _, code in tally.verdicts}, key=lambda code: (code != "read", code))
    rows = []
    for kind in sorted(tally.kinds):
        counts = [tally.verdicts[kind, code] for code in codes]
        rows.append(f"| {kind.replace('_', ' ')} | {tally.kinds[kind]} | {' | '.join(map(str, counts))} |")
    totals = [sum(tally.verdicts[kind, code] for kind in tally.kinds) for code in codes]
    rows.append(f"| **all** | {count} | {' | '.join(map(str, totals))} |")
    table = f"| mutation | inputs | {' | '.join(codes)} |\n|{'---|' * (len(codes) + 2)}"
    command = f"python -m benchmarks.fuzz --count {count} --seed {seed}" + (" FOLDER" if with_folders else "")
    return PAGE.format(
        command=command,
        count=count,
        sources=sources,
        unexplained=len(tally.unexplained),
        growth=tally.growth_mb,
        slowest=tally.slowest_s,
        seconds=tally.seconds,
        cores=os.cpu_count(),
        hang=HANG_S,
        table="\n".join([table, *rows]),
    )


PAGE = """# Ingest under broken files

Made by `{command}`:
{count} inputs from {sources}, each with one file broken by chance.
An input goes the real way: headers, taking apart, geometry gate, pixels.

| | |
|---|---|
| crashes of the process | 0 (a crash ends the run without this page) |
| hangs (a batch of more than {hang} s) | 0 (a hang ends the run without this page) |
| errors that are not explained by a code | {unexplained} |
| growth of the process's peak memory | {growth:.0f} MB |
| slowest single step (a tree's headers, a tree's verdicts, one volume) | {slowest:.1f} s |
| the whole run, {cores} cores | {seconds:.0f} s |

What became of the broken file's series: `read` as a volume (the damage lay in values that nothing depends on, or in
the pixels themselves), set aside with a code, or `no series` for a file that is no longer DICOM.

{table}
"""


if __name__ == "__main__":
    typer.run(main)
