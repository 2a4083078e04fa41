"""Volumes, pictures and sounds just as their files hold them, before any preparation: what controls look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.endings import PICTURES, SOUNDS, VOLUMES, ending_of
from pipeline.errors import CaseError


@dataclass(frozen=True, eq=False)
class RawFile:
    """What a file holds.

    Attributes:
        kind: what it is.
        values: (I, J, K) of a volume, (rows, columns) or (rows, columns, channels) of a picture, (samples, channels)
            of a sound, in the type that the file has.
        sampling: sides of a voxel in mm, samples of a sound a second, nothing of a picture.
    """

    kind: Literal["volume", "picture", "sound"]
    values: npt.NDArray[Any]
    sampling: tuple[float, ...] = ()


def read_raw(path: Path) -> RawFile:
    """Read a file as it is; a picture that is grey but stored in colour is grey.

    Raises:
        CaseError: E_UNREADABLE when it is none of a volume, a picture or a sound, or is damaged.
    """
    readers = {**dict.fromkeys(VOLUMES, _volume), **dict.fromkeys(SOUNDS, _sound), **dict.fromkeys(PICTURES, _picture)}
    ending = ending_of(path)
    if ending not in readers:
        raise CaseError("E_UNREADABLE", f"Expected one of {', '.join(readers)}, got a file {ending or 'without'}.")
    try:
        return readers[ending](path)
    except (OSError, ValueError, EOFError, RuntimeError, SyntaxError) as error:  # soundfile: RuntimeError; PIL: all
        why = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        what = f"Expected a whole file {ending}, but {path} cannot be read: {why}."
        raise CaseError("E_UNREADABLE", what, "Write the file again from its source.") from error


def _volume(path: Path) -> RawFile:
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        return RawFile("volume", np.asanyarray(image.dataobj), tuple(map(float, image.header.get_zooms()[:3])))
    except nib.filebasedimages.ImageFileError as error:
        raise ValueError("no NIfTI") from error


def _picture(path: Path) -> RawFile:
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    grey = values.ndim == 3 and values.shape[2] == 3 and (values == values[..., :1]).all()
    return RawFile("picture", values[..., 0] if grey else values)


def _sound(path: Path) -> RawFile:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return RawFile("sound", samples, (float(rate),))
