"""Tandem and the usual readers behind one call, each in a child process that may crash or hang.

A reader takes a folder and gives volumes: values (I, J, K) and a RAS affine in mm.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Volumes = list[tuple[FloatArray, FloatArray]]

TIMEOUT_S = 60.0


class ReaderRefusedError(Exception):
    """The reader says that it cannot read the folder."""


class ReaderCrashedError(Exception):
    """The reader has died or hangs."""


def tandem(folder: Path) -> Volumes:
    """The package under test: what ingest does up to the volumes, for roles in HU (CT) and Bq/ml (PET)."""
    from pipeline.dicom.headers.scan import scan
    from pipeline.dicom.pixels.volume import read
    from pipeline.dicom.series.gate import judge
    from pipeline.dicom.series.split import merge, split
    from pipeline.volumes import affine_of
    from tests.phantoms.planted import in_unit_of_role

    parts = merge([part for series in scan(folder).series for part in split(series)])
    judged = [in_unit_of_role(judge(part)) for part in parts]
    volumes = [read(series).image for series in judged if series.fault is None]
    return [(volume.numpy()[0].astype(float), affine_of(volume)) for volume in volumes]


def simpleitk(folder: Path) -> Volumes:
    """`ImageSeriesReader` on the files that GDCM finds for each series."""
    import SimpleITK as sitk

    from pipeline import geometry

    volumes = []
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
        image = reader.Execute()
        if image.GetNumberOfComponentsPerPixel() > 1:
            raise ReaderRefusedError("a colour image")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        volumes.append((sitk.GetArrayFromImage(image).T.astype(float), geometry.LPS_RAS @ affine))
    return volumes


def monai_itk(folder: Path) -> Volumes:
    """MONAI's `LoadImage` with `ITKReader`, on the folder."""
    return _monai(folder, "ITKReader")


def monai_pydicom(folder: Path) -> Volumes:
    """MONAI's `LoadImage` with `PydicomReader`, on the folder."""
    return _monai(folder, "PydicomReader")


def _monai(folder: Path, reader: str) -> Volumes:
    from monai.transforms import LoadImage

    image = LoadImage(reader=reader, ensure_channel_first=False)(folder)
    values = np.asarray(image, dtype=float)
    if values.ndim == 4 and values.shape[-1] == 3:
        raise ReaderRefusedError("a colour image")
    return [(values, np.asarray(image.affine, dtype=float))]


def dcm2niix(folder: Path) -> Volumes:
    """`dcm2niix`, all the NIfTI files that it writes; a 4D one is one volume for each time.

    Where it corrects a tilt or uneven slices it writes the stack as it stands beside: then only the corrected counts.
    """
    import dcm2niix as program

    with tempfile.TemporaryDirectory() as scratch:
        command = [str(program.bin), "-z", "n", "-b", "n", "-f", "%s_%p", "-o", scratch, str(folder)]
        status = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False).returncode
        if status < 0:
            raise ReaderCrashedError(f"signal {-status}")
        volumes: Volumes = []
        written = sorted(Path(scratch).glob("*.nii"))
        corrected = [path for path in written if path.stem.endswith(("_Tilt", "_Eq", "_Eq_1", "_Tilt_1", "_Tilt_Eq"))]
        for path in corrected or written:
            image = nib.load(path)
            if image.get_data_dtype().fields:
                raise ReaderRefusedError("a colour image")
            values = image.get_fdata()
            stack = values[..., None] if values.ndim == 3 else values
            volumes += [(stack[..., index], image.affine) for index in range(stack.shape[3])]
    return volumes


READERS: dict[str, Callable[[Path], Volumes]] = {
    "Tandem": tandem,
    "SimpleITK ImageSeriesReader": simpleitk,
    "MONAI ITKReader": monai_itk,
    "MONAI PydicomReader": monai_pydicom,
    "dcm2niix": dcm2niix,
}


class Child:
    """A reader in a process of its own, which is started again after it has died.

    Args:
        name: one of `READERS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "benchmarks.readers", self.name, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        self._pipe = Connection(ours.detach())

    def read(self, folder: Path) -> Volumes:
        """Read a folder.

        Raises:
            ReaderRefusedError: the reader raised, or gave nothing.
            ReaderCrashedError: it died, or took longer than `TIMEOUT_S`.
        """
        self._pipe.send(folder)
        try:
            if not self._pipe.poll(TIMEOUT_S):
                raise EOFError
            kind, answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self.close()
            self._start()
            raise ReaderCrashedError(f"dead, or slower than {TIMEOUT_S:g} s") from error
        if kind == "volumes" and answer:
            return list(answer)
        raise {"crashed": ReaderCrashedError}.get(kind, ReaderRefusedError)(answer or "no volume")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def serve(name: str, descriptor: int) -> None:
    """Answer one folder after the other; what the child's process does."""
    pipe = Connection(descriptor)
    while True:
        try:
            folder = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(READERS[name], folder))


def _answer(reader: Callable[[Path], Volumes], folder: Path) -> tuple[str, Any]:
    try:
        return "volumes", reader(folder)
    except (ReaderCrashedError, subprocess.TimeoutExpired) as error:
        return "crashed", str(error)
    except Exception as error:  # noqa: BLE001 - whatever a reader raises is its way of refusing
        return "refused", type(error).__name__


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
