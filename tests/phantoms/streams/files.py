"""Simulated streams as files (NIfTI, PNG of 16 bits, WAV) with the table of cases, and the truth in another table.

The truth never stands in the table that is learned from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.io import wavfile

from pipeline.errors import UsageError
from pipeline.learning.table import BY_CLASS, BY_NAME, PAIRING
from tests.phantoms.streams.cohort import Array, Kind, Shown, StreamCohort, simulate_streams
from tests.phantoms.streams.cough import RATE_HZ
from tests.phantoms.streams.cues import PAIRINGS, Floats, Pairing

CASES, TRUTH = "cases.csv", "truth.csv"
SUFFIX: dict[Kind, str] = {"volume": ".nii.gz", "image": ".png", "sound": ".wav"}
#: Directions of the volumes' axes, oblique and anisotropic, mm.
AFFINE = np.array([[1.2, 0.1, 0, -10], [-0.12, 1.0, 0, 5], [0, 0, 2.0, 7], [0, 0, 0, 1.0]])
#: One standard deviation of the noise in stored values, and what is stored for 0.
STORED_OF_ONE, STORED_OF_ZERO = {"volume": 100, "image": 2500}, {"volume": 1000, "image": 15000}
#: The layout of a processed data set: four classes, three streams, three parts.
CLASSES = ("Healthy", "LungsCancer", "Pneumonia", "covid")
PARTS = ("train", "valid", "test")
FOUR_CLASSES: dict[str, Shown] = {
    "CT": Shown("image", (64, 64)),
    "CXR": Shown("image", (96, 80)),
    "Cough sound": Shown("sound", (2 * RATE_HZ,)),
}


def write_cohort(folder: Path, cohort: StreamCohort) -> Path:
    """Write a cohort: a folder a stream, `cases.csv` and `truth.csv`.

    Args:
        folder: where to; must not hold a table of cases yet.
        cohort: what.

    Returns:
        The table of cases: `case_id, patient_id`, a column a stream, `label`, and `pairing`: `stem`, or `class` for
        cases that are no patients. The truth has `case_id, label`, the posterior of each class, and the one that each
        stream alone allows.

    Raises:
        UsageError: E_OUT when the folder holds a table of cases.
    """
    _require_free(folder / CASES)
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cohort.case_names()):
        files = {name: f"{name}/{case}{SUFFIX[shown.kind]}" for name, shown in cohort.streams.items()}
        for name, file in files.items():
            _write(folder / file, cohort.array(name, number), cohort.streams[name].kind)
        made = cohort.cues.pairing == "class"
        about = {"case_id": case, "patient_id": case.replace("case", "made" if made else "patient")}
        label = int(cohort.cues.labels[number])
        rows.append({**about, **files, "label": label, PAIRING: BY_CLASS if made else BY_NAME})
    _write_table(folder / TRUTH, _truth(cohort, [row["case_id"] for row in rows]))
    _write_table(folder / CASES, rows)
    return folder / CASES


def write_four_classes(
    folder: Path, each: Sequence[int] = (40, 12, 12), seed: int = 0, pairing: Pairing = "class"
) -> Path:
    """Write the layout `{train,valid,test}/{CT,CXR,Cough sound}/{class}/file`.

    Args:
        folder: where to; must not hold a part yet.
        each: how many files each stream has in each part.
        seed: of all chance.
        pairing: `class`: no file knows its patient. `patient`: the files of a patient have one name.

    Returns:
        The table of what each file alone tells of its class, beside the parts: `file, label`, the posterior.

    Raises:
        UsageError: E_OUT when the folder holds a part; E_CONFIG for fewer files than classes in one; another pairing.
    """
    if len(each) != len(PARTS) or min(each) < len(CLASSES):
        expected = f"{len(CLASSES)} files or more, one of each class, for each of {', '.join(PARTS)}"
        raise UsageError("E_CONFIG", f"Expected {expected}, got {list(each)}.", "Ask for more.")
    if pairing not in PAIRINGS:
        raise UsageError("E_CONFIG", f"Expected a pairing of {', '.join(PAIRINGS)}, got {pairing}.")
    rows: list[dict[str, Any]] = []
    for place, (part, count) in enumerate(zip(PARTS, each, strict=True)):
        _require_free(folder / part)
        cohort = simulate_streams("additive", count, seed * len(PARTS) + place, FOUR_CLASSES, len(CLASSES))
        rows += [row for name in FOUR_CLASSES for row in _write_part(folder, part, name, cohort, pairing)]
    _write_table(folder / TRUTH, rows)
    return folder / TRUTH


def _write_part(folder: Path, part: str, name: str, cohort: StreamCohort, pairing: Pairing) -> Iterable[dict[str, Any]]:
    """One stream of one part; where files know no patient, they are numbered in an order of its own."""
    place, kind = list(cohort.streams).index(name), cohort.streams[name].kind
    order = np.arange(len(cohort.cues.labels))
    if pairing == "class":
        order = np.random.default_rng([cohort.seed, place]).permutation(order)
    for number, case in enumerate(order.tolist()):
        label = int(cohort.cues.labels[case])
        stem = f"{part}_{number:04d}" if pairing == "patient" else f"{name.split()[0].lower()}_{number:04d}"
        file = f"{part}/{name}/{CLASSES[label]}/{stem}{SUFFIX[kind]}"
        _write(folder / file, cohort.array(name, case), kind)
        yield {"file": file, "label": label, **_columns("", cohort.cues.alone[case, place])}


def _truth(cohort: StreamCohort, names: Sequence[str]) -> list[dict[str, Any]]:
    posterior, alone = cohort.cues.posterior, cohort.cues.alone
    rows = []
    for number, case in enumerate(names):
        of_streams = [_columns(f"{name}_", alone[number, place]) for place, name in enumerate(cohort.streams)]
        row = {"case_id": case, "label": int(cohort.cues.labels[number]), **_columns("", posterior[number])}
        rows.append({**row, **{key: value for columns in of_streams for key, value in columns.items()}})
    return rows


def _columns(prefix: str, chances: Floats) -> dict[str, str]:
    return {f"{prefix}posterior_{label}": repr(float(chance)) for label, chance in enumerate(chances)}


def _write(path: Path, array: Array, kind: Kind) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "sound":
        wavfile.write(path, RATE_HZ, np.rint(array * 32767).astype(np.int16))
        return
    stored = np.rint(array * STORED_OF_ONE[kind] + STORED_OF_ZERO[kind])
    if kind == "volume":
        nib.save(nib.Nifti1Image(stored.clip(-32768, 32767).astype(np.int16), AFFINE), path)
    else:  # rows run down and columns to the patient's left, as a radiograph is looked at
        Image.fromarray(stored.clip(0, 65535).astype(np.uint16)[::-1, ::-1].T.copy()).save(path)


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _require_free(path: Path) -> None:
    if path.exists():
        raise UsageError("E_OUT", f"Expected a folder without a cohort, got one that holds {path.name}.")
