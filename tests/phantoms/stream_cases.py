"""Cases of a volume and a picture whose brightness says the class, alone or only together, and a sound of noise."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch

STREAMS: dict[str, dict[str, Any]] = {
    "mr": {"kind": "volume", "size": [8, 8, 8], "intensity": "none"},
    "cxr": {"kind": "image", "size": [12, 10]},
    "cough": {"kind": "sound", "size": [8, 16], "seconds": 1.0},
}
AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])
#: What brings the files of these cases into a training: the readers of arrays that stand beside the pictures.
READERS = {
    "read_streams::image::_target_": "tests.phantoms.stream_cases.ReadArraysd",
    "read_streams::sound::_target_": "tests.phantoms.stream_cases.ReadArraysd",
}


class ReadArraysd:
    """Read `.npy` files in the place of pictures and sounds."""

    def __init__(self, keys: Sequence[str], size: Sequence[int], intensity: Any = "full", seconds: float = 1.0) -> None:
        self.keys, self.size = tuple(keys), tuple(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read."""
        found = {key: torch.from_numpy(np.load(data[key])) for key in self.keys if key in data}
        return {**data, **found}


def arrays_of(
    mechanism: Literal["additive", "exclusive"], count: int, seed: int, sizes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Noise of deviation .5 with a mean of -1 or 1 in each stream, and the labels (N,).

    Additive: the mean is the label's in nine of ten cases. Exclusive: the label is whether an odd number is up.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    free = random.integers(0, 2, (count, len(sizes)))
    if mechanism == "exclusive":
        free[:, -1] = (free[:, :-1].sum(1) + labels) % 2
    else:
        free = np.where(random.random(free.shape) < 0.9, labels[:, None], 1 - labels[:, None])
    found = {
        name: (
            random.normal(0, 0.5, (count, *size)) + np.reshape(2 * free[:, at] - 1, (count, *[1] * len(size)))
        ).astype(np.float32)
        for at, (name, size) in enumerate(sizes.items())
    }
    return found, labels


def write_stream_cases(
    folder: Path,
    count: int,
    mechanism: Literal["additive", "exclusive"] = "additive",
    seed: int = 0,
    streams: Mapping[str, Mapping[str, Any]] = STREAMS,
    missing: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write cases and their table `cases.csv`; `missing` names the cases that lack a stream."""
    sizes = {name: stream["size"] for name, stream in streams.items()}
    arrays, labels = arrays_of(mechanism, count, seed, sizes)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        row = {"case_id": f"case-{number:03d}", "patient_id": f"patient-{number:03d}", "label": int(labels[number])}
        for name, stream in streams.items():
            if number in (missing or {}).get(name, ()):
                continue
            suffix = "nii.gz" if stream["kind"] == "volume" else "npy"
            row[name] = f"case-{number:03d}_{name}.{suffix}"
            if stream["kind"] == "volume":
                nib.save(nib.Nifti1Image(arrays[name][number], AFFINE), folder / row[name])
            else:
                np.save(folder / row[name], arrays[name][number][None])
        rows.append(row)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream_:
        columns = ["case_id", "patient_id", "label", *streams]
        writer = csv.DictWriter(stream_, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
