"""What files tell that no patient needs: facts of the files, the frame of a picture, a thumbnail of 16 x 16.

A network that does no better than these has not been shown to see anything of the disease. Files are looked at just as
they are, before any preparation.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.signal import spectrogram

from pipeline.endings import PICTURES, SOUNDS, VOLUMES, ending_of
from pipeline.errors import CaseError

Floats = npt.NDArray[np.float64]
#: A number or a word that is known of a case.
Fact = float | str
#: Pixels along each side of the thumbnail.
THUMBNAIL = 16
#: Blocks along each side of a picture, whose pixels are averaged, and how many of them the frame is wide: of 224 pixels
#: the outer 16.
BLOCKS, RING = 28, 2
#: A word that so many cases have is a feature of its own.
WORDS_FROM = 5
#: What is added to the power of a sound, so that silence has a logarithm.
FAINT = 1e-10


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
    try:  # soundfile raises RuntimeError, PIL all of these
        return readers[ending](path)
    except (OSError, ValueError, EOFError, RuntimeError, SyntaxError, zlib.error) as error:
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
    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    grey = values.ndim == 3 and values.shape[2] == 3 and (values == values[..., :1]).all()
    return RawFile("picture", values[..., 0] if grey else values)


def _sound(path: Path) -> RawFile:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return RawFile("sound", samples, (float(rate),))


def file_facts(path: Path, raw: RawFile) -> dict[str, Fact]:
    """Facts of a file that can be told without looking at what is in it.

    Returns:
        Size in bytes, ending, type of its values, and the sides of a volume or picture with their ratio, the sides of
        voxels in mm; of a sound its duration in s, samples a second, channels, and its loudness in dB of full scale.
    """
    found: dict[str, Fact] = {"bytes": np.log10(max(path.stat().st_size, 1)), "ending": ending_of(path)}
    found["type"] = str(raw.values.dtype)
    if raw.kind == "sound":
        power = float(np.mean(np.square(raw.values, dtype=np.float64))) if raw.values.size else 0.0
        found |= {"duration_s": len(raw.values) / raw.sampling[0], "rate": f"{raw.sampling[0]:g}"}
        return found | {"channels": str(raw.values.shape[1]), "loudness_db": 10 * np.log10(power + FAINT)}
    sides = raw.values.shape[:2] if raw.kind == "picture" else raw.values.shape
    found |= side_facts("size", sides) | {"channels": str(raw.values.shape[len(sides) :])}
    return found | {f"voxel_{axis}": side for axis, side in enumerate(raw.sampling)}


def side_facts(name: str, sides: Sequence[float]) -> dict[str, Fact]:
    """The sides of an image as numbers and as a word: a network tells `1024x1024` from all others."""
    numbers = {f"{name}_{axis}": float(np.log(max(side, 1e-6))) for axis, side in enumerate(sides)}
    ratio = float(np.log(max(sides[0], 1e-6) / max(sides[1], 1e-6))) if len(sides) > 1 else 0.0
    return {**numbers, f"{name}_ratio": ratio, name: "x".join(f"{side:g}" for side in sides)}


def told_fact(name: str, text: str) -> dict[str, Fact]:
    """A cell of a table as facts: sides such as `1024x1024`, a number, or a word; nothing of an empty one."""
    try:
        sides = [float(part) for part in text.lower().split("x")] if text else []
    except ValueError:
        return {name: text}
    return side_facts(name, sides) if len(sides) > 1 else {name: sides[0]} if sides else {}


def fact_features(facts: Sequence[Mapping[str, Fact]]) -> Floats:
    """(N, F): numbers as they are, NaN where a case has none, and a column for each word that several cases have."""
    names = sorted({name for case in facts for name in case})
    columns: list[Floats] = []
    for name in names:
        values = [case.get(name) for case in facts]
        words = Counter(value for value in values if isinstance(value, str))
        for word, count in sorted(words.items()):
            if WORDS_FROM <= count < len(facts):
                columns.append(np.array([float(value == word) for value in values]))
        if not words:
            columns.append(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
    return np.stack(columns, 1) if columns else np.zeros((len(facts), 0))


def frame(raw: RawFile) -> Floats | None:
    """(208,): the outer ring of a picture, or of a volume's mean along its last axis; None of a sound."""
    if raw.kind == "sound":
        return None
    ring = np.ones((BLOCKS, BLOCKS), bool)
    ring[RING:-RING, RING:-RING] = False
    return np.asarray(_averaged(_plane(raw), (BLOCKS, BLOCKS))[ring])


def thumbnail(raw: RawFile) -> Floats:
    """(256,): 16 x 16 of a picture, of a volume's mean along its last axis, or of a sound's logarithmic spectrogram."""
    return _averaged(_spectrum(raw) if raw.kind == "sound" else _plane(raw), (THUMBNAIL, THUMBNAIL)).ravel()


def _plane(raw: RawFile) -> Floats:
    """A volume or a picture as one grey plane."""
    values = raw.values.astype(np.float64)
    if raw.kind == "volume":
        values = values.reshape(*values.shape[:2], -1)
    plane = values.mean(-1) if values.ndim == 3 else values
    return np.asarray(np.nan_to_num(plane))


def _spectrum(raw: RawFile) -> Floats:
    samples = np.nan_to_num(raw.values.astype(np.float64).mean(1))
    padded = np.pad(samples, (0, max(0, 256 - len(samples))))
    return np.asarray(np.log10(spectrogram(padded, raw.sampling[0], nperseg=256)[2] + FAINT))


def _averaged(plane: npt.ArrayLike, size: tuple[int, int]) -> Floats:
    """A plane in so many rows and columns: means over boxes."""
    image = Image.fromarray(np.asarray(plane, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BOX), np.float64)
