"""nnU-Net's raw dataset: images and labels RAS+ on one grid, dataset.json, folds by patient, and the way back.

What nnU-Net only warns of (origin, direction) is an error here, of its case: the others go on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.data import MetaTensor

from pipeline.cases import Fault
from pipeline.errors import CaseError, PipelineError, UsageError
from pipeline.geometry import orientation_of
from pipeline.segmentation.labels import LabelMap, renumbered, require_channels
from pipeline.segmentation.splits import SPLITS, patient_folds, rare_labels
from pipeline.segmentation.workspace import TANDEM
from pipeline.store.artifacts import save
from pipeline.store.attempts import whole_folder
from pipeline.store.files import run_lock, writable_folder, write_atomic
from pipeline.store.plain import write_json
from pipeline.store.records import CASES_TABLE, case_folder
from pipeline.volumes import affine_of, oriented, require_same_grid, volume

ENDING = ".nii.gz"
#: Reads a file: each of its channels (1, I, J, K), checked, on its own grid.
Read = Callable[[Path], Sequence[MetaTensor]]


@dataclass(frozen=True)
class RawCase:
    """A case of a source.

    Attributes:
        case_id: its name in the dataset.
        patient: whose it is.
        images: role -> file; one file may hold all channels along its fourth axis.
        label: the file of its labels; None for a case that is to be predicted.
    """

    case_id: str
    patient: str
    images: Mapping[str, Path]
    label: Path | None = None


@dataclass(frozen=True)
class Source:
    """What a dataset is made of.

    Attributes:
        channels: role -> name of the channel, in the network's order.
        labels: how labels are numbered.
        cases: of the source.
        spec: name of the data spec; empty where there is none.
    """

    channels: Mapping[str, str]
    labels: LabelMap
    cases: Sequence[RawCase]
    spec: str = ""


@dataclass
class Written:
    """What was written.

    Attributes:
        folder: the dataset's.
        shown: training case -> the labels that it shows.
        failed: case -> why it was left out.
        copied: how many files were copied because the disk cannot link them.
        rare: name of a label -> number of patients who show it, where they are fewer than the folds.
        grids: case -> `shape` and `affine` of its first channel in the source.
    """

    folder: Path
    shown: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, Fault] = field(default_factory=dict)
    copied: int = 0
    rare: dict[str, int] = field(default_factory=dict)
    grids: dict[str, Any] = field(default_factory=dict)


def write_dataset(
    source: Source, out: Path, dataset: tuple[int, str], read: Read, folds: int, seed: int = 0, copy: bool = False
) -> Written:
    """Write `DatasetNNN_Name`, wholly or not at all; cases that fail are left out and named in its `cases.csv`.

    Args:
        source: what it is made of.
        out: the folder of raw datasets (`nnUNet_raw`).
        dataset: number from 1 to 999, and name.
        read: reads a file.
        folds: of `splits_final.json`.
        seed: of the folds.
        copy: copy files; else those that need no change are links of the disk (hard links), which hold no path.

    Raises:
        UsageError: E_OPTION, E_OUT when the number is taken, E_NO_CASES, E_FOLD, E_EXTRA, E_DISK, E_BUSY.
    """
    name = _dataset_name(*dataset)
    require_nnunet()
    names = [case.case_id for case in source.cases]
    if len(set(names)) < len(names):
        twice = next(case for case in names if names.count(case) > 1)
        raise UsageError("E_CASE_ID", f"Expected different names of cases, got {twice} twice.")
    with run_lock(out):
        _require_free(out, name)
        with whole_folder(out / name) as folder:
            found = _fill(source, Written(folder), read, copy)
            _describe(source, found, name, folds, seed)
        found.folder = out / name
    return found


def _fill(source: Source, found: Written, read: Read, copy: bool) -> Written:
    for case in source.cases:
        case_folder(found.folder, case.case_id)  # its name is fit to be one
        files = _Files(found, case, list(source.channels), copy)
        try:
            files.write(source.labels, read)
        except PipelineError as error:
            if error.code == "E_DISK":
                raise
            files.remove()
            found.failed[case.case_id] = Fault.from_error(error)
    if not found.shown:
        reasons = [fault.message for fault in found.failed.values()]
        what = f"Expected cases to learn from, got none. {reasons[0] if reasons else ''}".strip()
        raise UsageError("E_NO_CASES", what, "Check the input.")
    return found


class _Files:
    """The files of one case."""

    def __init__(self, found: Written, case: RawCase, channels: Sequence[str], copy: bool) -> None:
        self.found, self.case, self.channels, self.copy = found, case, channels, copy
        part = "Tr" if case.label else "Ts"
        self.images, self.labels = (writable_folder(found.folder / f"{kind}{part}") for kind in ("images", "labels"))

    def write(self, labels: LabelMap, read: Read) -> None:
        """Write and check the case.

        Raises:
            CaseError: E_CHANNELS, E_GRID, E_LABEL, E_NIFTI, E_VERIFY, E_DISK.
        """
        require_channels(self.channels, [role for role in self.channels if role in self.case.images])
        files = dict.fromkeys(self.case.images[role] for role in self.channels)
        parts = {path: read(path) for path in files}
        # one file for several channels holds all of them; else each file is one
        whole = [1] * len(self.channels) if len(files) > 1 else [len(self.channels)]
        if [len(parts[path]) for path in files] != whole:
            got = " and ".join(str(len(parts[path])) for path in files)
            what = f"Expected files with the channels {', '.join(self.channels)}, got {got} of them."
            raise CaseError("E_CHANNELS", what)
        images = [image for path in files for image in parts[path]]
        upright = [oriented(image) for image in images]
        paths = []
        for number, (role, image, turned) in enumerate(zip(self.channels, images, upright, strict=True)):
            require_same_grid(upright[0], turned, (self.channels[0], role))
            placed, path = _on_grid(turned, upright[0]), self.case.images[role]
            source = path if placed is image and len(parts[path]) == 1 else None
            paths.append(self._put(self.images, f"{self.case.case_id}_{number:04d}", "image", placed, source))
        if self.case.label is not None:
            self._write_label(labels, read(self.case.label), upright[0], paths)
        grid = {"shape": list(images[0].shape[1:]), "affine": affine_of(images[0]).tolist()}
        self.found.grids[self.case.case_id] = grid

    def _write_label(
        self, labels: LabelMap, parts: Sequence[MetaTensor], grid: MetaTensor, images: Sequence[Path]
    ) -> None:
        if len(parts) != 1:
            raise CaseError("E_LABEL", f"Expected one label image, got a file with {len(parts)} volumes.")
        turned = oriented(parts[0])
        require_same_grid(grid, turned, (self.channels[0], "the labels"))
        placed = _on_grid(turned, grid)
        values = labels.to_network(placed.numpy())
        source = self.case.label if placed is parts[0] and np.array_equal(values, placed.numpy()) else None
        path = self._put(self.labels, self.case.case_id, "label", volume(values, affine_of(placed)), source)
        check_case(images, path, [0, *range(1, len(labels.names) + 1)])
        learned = set(labels.learned.values())
        self.found.shown[self.case.case_id] = [int(value) for value in np.unique(values) if value in learned]

    def _put(self, folder: Path, key: str, kind: str, image: MetaTensor, source: Path | None) -> Path:
        """Link, copy or write one file; `source` is the file that needs no change, or None."""
        target = folder / f"{key}{ENDING}"
        if source is None or not source.name.endswith(ENDING):
            return save(key, kind, image, folder)[0]
        try:
            if not self.copy:
                os.link(source.resolve(), target)
                return target
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            self.found.copied += 1
        write_atomic(target, lambda path: shutil.copyfile(source, path))
        return target

    def remove(self) -> None:
        """Leave nothing of the case."""
        name = self.case.case_id
        for path in (*self.images.glob(f"{name}_????{ENDING}"), *self.labels.glob(f"{name}{ENDING}")):
            path.unlink()


def check_case(images: Sequence[Path], label: Path, labels: Sequence[int]) -> None:
    """Ask nnU-Net's own integrity check of one case; what it only warns of is an error.

    Raises:
        CaseError: E_LABEL for labels that it does not expect, E_GRID for all else that it says, both in its words.
    """
    from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    for code, call in (
        ("E_LABEL", lambda: verify_labels(str(label), SimpleITKIO, list(labels))),
        ("E_GRID", lambda: check_cases([str(path) for path in images], str(label), len(images), SimpleITKIO)),
    ):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            fine = call()
        if not fine or said.getvalue().strip():
            # its first line, without the path that it ends with
            line = (said.getvalue().strip().splitlines() or ["no reason given"])[0]
            words = line.split(": ")[-1].split(" in file ")[0].rstrip(". ")
            raise CaseError(code, f"Expected a case that nnU-Net accepts, got: {words}.")


def require_nnunet() -> None:
    """Refuse to go on without nnU-Net.

    Raises:
        UsageError: E_EXTRA.
    """
    try:
        import nnunetv2  # noqa: F401
    except ImportError as error:
        what = "Segmentation needs nnunetv2, got no such package: pip install 'tandem-imaging[segment]'."
        raise UsageError("E_EXTRA", what) from error


def _describe(source: Source, found: Written, name: str, folds: int, seed: int) -> None:
    """Write dataset.json, the folds, and what Tandem keeps beside them."""
    patients = {case.case_id: case.patient for case in source.cases if case.case_id in found.shown}
    splits = patient_folds(found.shown, patients, folds, seed)
    names = {number: label for label, number in source.labels.learned.items()}
    found.rare = {names[label]: count for label, count in rare_labels(found.shown, patients, folds).items()}
    dataset = {
        "name": name,
        "channel_names": {str(number): channel for number, channel in enumerate(source.channels.values())},
        **source.labels.as_dataset(),
        "numTraining": len(found.shown),
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "converted_by": "Tandem",
    }
    about = {"spec": source.spec, "channels": list(source.channels), "label_map": source.labels.label_map}
    write_json(found.folder / TANDEM, {**about, "patients": patients, "grids": found.grids})
    write_json(found.folder / SPLITS, splits)
    write_json(found.folder / "dataset.json", dataset)
    for empty in found.folder.glob("*T[rs]"):
        if not any(empty.iterdir()):
            empty.rmdir()
    save(CASES_TABLE.removesuffix(".csv"), "table", _table(source, found), found.folder)


def _table(source: Source, found: Written) -> pd.DataFrame:
    rows = []
    for case in source.cases:
        fault = found.failed.get(case.case_id, Fault("", ""))
        part = "training" if case.label else "test"
        status = "failed" if fault.code else "done"
        rows.append((case.case_id, case.patient, part, status, fault.code, fault.message))
    return pd.DataFrame(rows, columns=["case_id", "patient_id", "part", "status", "code", "reason"])


def write_back(predicted: Path, dataset: Path, out: Path, read: Read) -> dict[str, Fault | None]:
    """Write nnU-Net's label images with the values and on the grids of the source.

    Args:
        predicted: a folder of `case.nii.gz`.
        dataset: the folder that `write_dataset` has written.
        out: the folder for the label images.
        read: reads a file.

    Returns:
        Case -> why it failed, or None.

    Raises:
        UsageError: E_NO_CASES when there are no label images, E_INPUT when the dataset is not Tandem's, E_OUT, E_DISK.
    """
    about = read_about(dataset)
    files = sorted(predicted.glob(f"*{ENDING}"))
    if not files:
        raise UsageError(
            "E_NO_CASES", f"Expected label images (*{ENDING}) in {predicted}, got none.", "Check the path."
        )
    writable_folder(out)
    numbers = {0: 0, **{int(number): int(value) for number, value in about["label_map"].items()}}
    cases = {path.name.removesuffix(ENDING): path for path in files}
    return {case: _back(path, case, about["grids"], numbers, out, read) for case, path in cases.items()}


def _back(
    path: Path, case: str, grids: Mapping[str, Any], numbers: Mapping[int, int], out: Path, read: Read
) -> Fault | None:
    try:
        image = read(path)[0]
        values = volume(renumbered(image.numpy(), numbers), affine_of(image))
        if case not in grids:  # of a new image, whose grid it has
            save(case, "label", values, out)
            return None
        shape, affine = grids[case]["shape"], np.asarray(grids[case]["affine"])
        turned = oriented(values, orientation_of(affine))
        require_same_grid(volume(np.zeros(shape, np.uint8), affine), turned, ("the source", "the labels"))
        save(case, "label", volume(turned.as_tensor(), affine), out)
    except CaseError as error:
        if error.code == "E_DISK":
            raise UsageError(error.code, error.message) from error
        return Fault.from_error(error)
    return None


def read_about(folder: Path) -> dict[str, Any]:
    """What Tandem keeps beside dataset.json.

    Raises:
        UsageError: E_INPUT when there is none, or it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / TANDEM).read_text(encoding="utf-8"))
        return {**found, "label_map": dict(found["label_map"]), "grids": dict(found["grids"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"Expected a dataset that `tandem convert nnunet` has written, got {folder} without a usable {TANDEM}."
        raise UsageError("E_INPUT", what) from error


def _on_grid(image: MetaTensor, grid: MetaTensor) -> MetaTensor:
    """The image with exactly the affine of its case's first channel: nnU-Net compares numbers, not places."""
    if np.allclose(affine_of(image), affine_of(grid)):
        return image
    return volume(image.as_tensor(), affine_of(grid))


def _dataset_name(number: int, name: str) -> str:
    if not 1 <= number <= 999 or not name.isalnum() or not name.isascii():
        what = f"Expected a dataset from 1 to 999 with a name of letters and digits, got {number} and {name!r}."
        raise UsageError("E_OPTION", what, "Such as --dataset 501 --name SarcomaCTMR.")
    return f"Dataset{number:03d}_{name}"


def _require_free(out: Path, name: str) -> None:
    taken = sorted(path.name for path in out.glob(f"{name[:10]}_*"))
    if taken:
        remedy = "Choose another --dataset number, or delete that folder."
        raise UsageError("E_OUT", f"Expected a free number of a dataset in {out}, got {taken[0]} there.", remedy)
