"""MedMNIST's arrays as folders of pictures. Source: Yang et al., MedMNIST v2, Scientific Data 10:41, 2023."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import UsageError
from pipeline.store.files import full_disk_named, require_given, writable_folder

#: Prefix of the arrays' names -> the split's folder.
_SPLITS = {"train": "train", "val": "valid", "test": "test"}
_WANTED = "train_images, train_labels and those of val or test"


def write_pictures(path: Path, out: Path) -> None:
    """Write the pictures of an `.npz` file as `{train,valid,test}/{label}/{number}.png`.

    Args:
        path: with `{train,val,test}_images` (N, rows, columns), uint8, and `{train,val,test}_labels` (N, 1) or
            (N,). A split may be missing.
        out: the folder; what it holds of an earlier call is written again.

    Raises:
        UsageError: E_TABLE when the file is another; E_OUT when the folder holds pictures of something else.
    """
    arrays = _arrays(path)
    labels = np.unique(np.concatenate([label for _, label in arrays.values()]))
    if not np.array_equal(labels, np.arange(len(labels))):
        raise UsageError("E_TABLE", f"Expected labels from 0 without a gap in {path.name}, got {labels.tolist()[:20]}.")
    writable_folder(out)
    files = dict(_named(arrays, out, len(str(labels.max()))))
    below = [folder for folder in out.iterdir() if folder.is_dir()]
    there = {file for folder in below for file in folder.rglob("*") if not file.is_dir()}
    strange = sorted([*(there - {*files}), *(folder for folder in below if folder.name not in _SPLITS.values())])
    if strange:
        raise UsageError("E_OUT", f"Expected a folder without anything else, got {strange[0]}.", "Choose an empty one.")
    for file, pixels in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_named(file):
            Image.fromarray(pixels).save(file)


def _arrays(path: Path) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Split -> its pictures and their labels (N,)."""
    require_given(path, f"an .npz file with {_WANTED}")
    try:
        with np.load(path, allow_pickle=False) as found:
            there = [name for name in _SPLITS if f"{name}_images" in found.files and f"{name}_labels" in found.files]
            arrays = {name: (found[f"{name}_images"], found[f"{name}_labels"]) for name in there}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError("E_TABLE", f"Expected an .npz file with {_WANTED}, but {path} cannot be read.") from error
    if "train" not in arrays or len(arrays) < 2:
        raise UsageError("E_TABLE", f"Expected {_WANTED} in {path.name}, got {', '.join(found.files)[:200] or 'none'}.")
    return {name: _fitting(name, *pair) for name, pair in arrays.items()}


def _fitting(
    name: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    flat = labels.reshape(len(labels), -1)
    if images.dtype != np.uint8 or images.ndim != 3:
        what = f"Expected {name}_images as grey 8-bit pictures (N, rows, columns), got {images.dtype} {images.shape}."
        raise UsageError("E_TABLE", what, "Colours are not learned from; volumes have to be written as NIfTI.")
    if flat.shape != (len(images), 1) or flat.dtype.kind not in "iu":
        what = f"Expected one class a picture in {name}_labels, got {labels.dtype} {labels.shape} of {len(images)}."
        raise UsageError("E_TABLE", what)
    return images, flat[:, 0]


def _named(
    arrays: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], out: Path, digits: int
) -> Iterator[tuple[Path, npt.NDArray[Any]]]:
    for name, (images, labels) in arrays.items():
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield out / _SPLITS[name] / f"{label:0{digits}d}" / f"{number:05d}.png", pixels
