"""From a folder of DICOM to .nii.gz, by Tandem and by its peers: each in a process of its own, timed and weighed."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.shipped import shipped

Job = Callable[[], object]

#: The file in which a child leaves its seconds.
INSIDE = "seconds"


@dataclass(frozen=True)
class Timing:
    """One run: seconds and MB of the whole process; seconds after the imports and their MB, None for a program."""

    whole_s: float
    peak_mb: float
    inside_s: float | None = None
    imports_mb: float | None = None


def tandem(folder: Path, out: Path) -> Job:
    """The ingest stage of the shipped bundle: index, gate, read, write, verify, record."""
    from pipeline.run import loading
    from pipeline.run.plan import Plan

    loaded = loading.load("ingest", Plan(folder, out))

    def run() -> None:
        found = [loaded.stage.run_case(case) for case in loaded.find_cases()]
        if not found or any(record.status != "done" for record in found):
            raise SystemExit(f"Tandem did not ingest the series: {[record.error for record in found]}")

    return run


def tandem_index(folder: Path, out: Path) -> Job:
    """The headers alone: scan, split, merge and gate."""
    from pipeline.dicom.headers.scan import scan
    from pipeline.dicom.series.gate import judge
    from pipeline.dicom.series.split import merge, split

    return lambda: [judge(part) for part in merge([p for series in scan(folder).series for p in split(series)])]


def dicom2nifti(folder: Path, out: Path) -> Job:
    """dicom2nifti: `convert_directory` with its defaults (compressed, reoriented)."""
    import dicom2nifti as peer

    return lambda: peer.convert_directory(str(folder), str(out))


def simpleitk(folder: Path, out: Path) -> Job:
    """SimpleITK: `ImageSeriesReader` on GDCM's list, `WriteImage`."""
    import SimpleITK as sitk

    def run() -> None:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        sitk.WriteImage(reader.Execute(), str(out / "image.nii.gz"))

    return run


def monai_itk(folder: Path, out: Path) -> Job:
    """MONAI: `LoadImage` with `ITKReader`, `SaveImage`."""
    import itk  # noqa: F401  # MONAI imports it when the first image is read

    return _monai(folder, out, "ITKReader")


def monai_pydicom(folder: Path, out: Path) -> Job:
    """MONAI: `LoadImage` with `PydicomReader`, `SaveImage`."""
    return _monai(folder, out, "PydicomReader")


def _monai(folder: Path, out: Path, reader: str) -> Job:
    from monai.transforms import Compose, LoadImage, SaveImage

    save = SaveImage(output_dir=out, output_ext=".nii.gz", resample=False, print_log=False)
    chain = Compose([LoadImage(reader=reader, ensure_channel_first=True), save])
    return lambda: chain(folder)


#: Name -> what prepares a job (imports, configuration) and gives it.
LIBRARIES: dict[str, Callable[[Path, Path], Job]] = {
    "Tandem, ingest": tandem,
    "Tandem, headers only": tandem_index,
    "dicom2nifti": dicom2nifti,
    "SimpleITK": simpleitk,
    "MONAI ITKReader": monai_itk,
    "MONAI PydicomReader": monai_pydicom,
}


def run_library(name: str, folder: Path) -> Timing:
    """Run one of the `LIBRARIES` in a fresh Python."""
    return run_program([sys.executable, "-m", "benchmarks.contenders", name, str(folder), "OUT"], "*")


def run_program(command: list[str], written: str) -> Timing:
    """Run a program with a fresh output folder for `OUT`; `written` is a pattern of what it has to leave there."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        started = time.perf_counter()
        process = subprocess.Popen(
            [part.replace("OUT", str(out)) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if status or not list(out.rglob(written)):
            raise SystemExit(f"{command[:3]} ended with {process.returncode} and left no {written}.")
        inside = (out / INSIDE).read_text().split() if (out / INSIDE).exists() else []
        return Timing(seconds, usage.ru_maxrss / 1024, *map(float, inside))


def run_inside(name: str, folder: Path, out: Path) -> None:
    """Run one of the `LIBRARIES` in this process; write down the seconds after its imports, and the MB until then."""
    job = LIBRARIES[name](folder, out)
    imports_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    job()
    (out / INSIDE).write_text(f"{time.perf_counter() - started} {imports_mb}")


def dcm2niix_command(folder: Path) -> list[str]:
    """dcm2niix with its defaults and compression: the program itself, not its Python wrapper."""
    import dcm2niix

    return [str(dcm2niix.bin), "-z", "y", "-o", "OUT", str(folder)]


def tandem_command(folder: Path) -> list[str]:
    """The ingest bundle as a command of its own."""
    config = shipped("bundles", "ingest", "configs", "inference.yaml")
    names = ["--config_file", str(config), "--bundle_root", str(shipped("bundles", "ingest"))]
    return [
        *(sys.executable, "-m", "monai.bundle", "run", *names),
        *("--dataset_dir", str(folder), "--output_dir", "OUT"),
    ]


def median(timings: list[Timing]) -> Timing:
    """The median of each figure by itself; of the peak memory the largest."""
    inside = [timing.inside_s for timing in timings if timing.inside_s is not None]
    imports = [timing.imports_mb for timing in timings if timing.imports_mb is not None]
    return Timing(
        statistics.median(timing.whole_s for timing in timings),
        max(timing.peak_mb for timing in timings),
        statistics.median(inside) if inside else None,
        statistics.median(imports) if imports else None,
    )


if __name__ == "__main__":
    run_inside(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
