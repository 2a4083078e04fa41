"""Align one image with another, without a cohort: the `register` and `report` bundles on a pair of paths."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from filecmp import cmp
from pathlib import Path
from typing import cast, get_args

import numpy as np
from monai.data import MetaTensor

from pipeline.cases import Record
from pipeline.console import echo, shown
from pipeline.endings import volume_stem
from pipeline.errors import CaseError, UsageError
from pipeline.nifti.volume import read_argument
from pipeline.registration.landmarks import landmarks_key, read_landmarks
from pipeline.run import batch, loading
from pipeline.run.plan import Plan
from pipeline.spec.explain import did_you_mean
from pipeline.spec.register import Transform
from pipeline.spec.roles import wrong_modality
from pipeline.spec.spec import SPEC_FILE, Mask, Moving, Register, Role, Spec, save_spec
from pipeline.store import records
from pipeline.store.artifacts import save
from pipeline.store.files import left_as_found, require_apart, require_given, run_lock, writable_folder
from pipeline.store.pseudonyms import Pseudonyms

CASE_ID = "pair"
Image = tuple[Path, str]
#: A mask of a data spec names its regions by the values 1, 2 … 255.
LARGEST_VALUE = 255

MOVED, QUALITY = "moved.nii.gz", "quality.json"
#: The plain names in the run folder: links to what the stages have recorded, so that there is one copy of each.
NAMES = {
    MOVED: "register/moving_aligned.nii.gz",
    "transform.h5": "register/moving_transform.h5",
    "inverse.h5": "register/moving_inverse.h5",
    QUALITY: "register/moving_quality.json",
    "log.txt": "register/moving_log.txt",
    "checkerboard.png": "report/moving_after.png",
}


def register(  # noqa: PLR0913 - each is an option of the command
    fixed: str | Path,
    moving: str | Path,
    out: str | Path,
    fixed_modality: str = "CT",
    moving_modality: str = "MR",
    transform: str = "rigid",
    parameters: str | None = None,
    fixed_mask: str | Path | None = None,
    moving_mask: str | Path | None = None,
    fixed_landmarks: str | Path | None = None,
    moving_landmarks: str | Path | None = None,
    apply_to: Sequence[str | Path] = (),
    fixed_label: Sequence[str | Path] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, list[Record]]:
    """Align one image with another, and report on it: `tandem register`.

    Args:
        fixed: the image that stays: a NIfTI file, or a folder of one DICOM series.
        moving: the image that is moved onto it: likewise.
        out: the run folder; `NAMES` says what lies in it, with `<label>_moved.nii.gz` for each label volume.
        fixed_modality: of a fixed NIfTI file; DICOM says its own.
        moving_modality: likewise.
        transform: how freely: one of `pipeline.spec.register.Transform`.
        parameters: an elastix parameter file, or the name of a shipped one.
        fixed_mask: where to look in the fixed image, in the place of the body; on its grid.
        moving_mask: likewise.
        fixed_landmarks: a file of landmarks.
        moving_landmarks: the same points of the moving image.
        apply_to: label volumes of the moving image, which are carried onto the fixed grid.
        fixed_label: the same structures of the fixed image, for comparison: one for each of `apply_to`, in this order,
            with the same values; or none.
        overwrite: do the work again even where it is done.
        progress: print a line a stage.

    Returns:
        The records, by case id.

    Raises:
        UsageError: E_NIFTI, E_AMBIGUOUS or what ingest raises when an image cannot be used; E_INPUT for a file
            of landmarks that is not there, E_LANDMARKS for one that counts the voxels of a DICOM series; E_NAMES for
            two labels of one name; E_OPTION for a transform that there is not, or for labels of the fixed image that
            do not go with those of the moving one; E_OUT, E_BUSY.
    """
    known = get_args(Transform)
    if transform not in known:
        near = did_you_mean(transform, known) or "."
        raise UsageError("E_OPTION", f"Expected one of {', '.join(known)} as the transform, got {transform}{near}")
    for name, modality in (("fixed", fixed_modality), ("moving", moving_modality)):
        if wrong := wrong_modality(modality):
            raise UsageError("E_OPTION", f"--{name}-modality: {wrong}{'' if wrong.endswith('?') else '.'}")
    out = Path(out)
    pair = {"fixed": (Path(fixed), fixed_modality), "moving": (Path(moving), moving_modality)}
    masks = _given({"fixed_mask": fixed_mask, "moving_mask": moving_mask})
    marks = _given({landmarks_key("fixed"): fixed_landmarks, landmarks_key("moving"): moving_landmarks})
    labels = _label_names([Path(path) for path in apply_to])
    drawn = _partners(labels, [Path(path) for path in fixed_label])
    names = NAMES | {f"{stem}_moved.nii.gz": f"register/{key}_aligned.nii.gz" for key, (stem, _) in labels.items()}
    _require_free(out, names)
    _require_landmarks(marks, pair)
    volumes = {**masks, **{key: path for key, (_, path) in labels.items()}, **drawn}
    plain = [path for path, _ in pair.values() if not path.is_dir()]
    for path in {path for path, _ in pair.values()} - {*plain}:
        require_apart(out, path)
    files = {path: read_argument(path) for path in [*plain, *volumes.values()]}
    with shown(progress), left_as_found(out, "input_*", SPEC_FILE):
        images = {name: _volume(*image, files, out / f"input_{name}") for name, image in pair.items()}
        _say_two_patients([out / f"input_{name}" for name, (path, _) in pair.items() if path.is_dir()])
        inputs = {name: path for name, (path, _) in images.items()} | marks
        inputs |= {key: _save("label", files[path], out / f"input_{key}") for key, path in volumes.items()}
        regions = {
            key: _common(key, files[path], files[drawn[_drawn(key)]]) if drawn else {}
            for key, (_, path) in labels.items()
        }
        spec = _spec(images, masks, regions, cast(Transform, transform), parameters)
        with run_lock(out):
            save_spec(spec, out)
            for name in ("register", "report"):
                _run(name, inputs, out, overwrite)
            link(out, CASE_ID, names)
    return records.of_run(out)


def _say_two_patients(ingested: Sequence[Path]) -> None:
    """Say so where the headers of both folders name a patient, and not the same."""
    tables = (Pseudonyms(path).kept(records.SERIES_TABLE) for path in ingested)
    names = [{row["patient_id"] for row in table if row["case_id"]} for table in tables]
    if len(names) == 2 and all(names) and names[0].isdisjoint(names[1]):
        echo("The headers of the two images name two patients (PatientID, IssuerOfPatientID)", error=True)


def _given(paths: Mapping[str, str | Path | None]) -> dict[str, Path]:
    return {key: Path(path) for key, path in paths.items() if path is not None}


def _run(name: str, inputs: Mapping[str, Path], out: Path, overwrite: bool) -> None:
    loaded = loading.load(name, Plan(out, out, overwrite=overwrite))
    known = loaded.find_cases() if (out / "cases").is_dir() else []  # none for `register`, whose inputs no stage made
    loaded.stage.run([{**next(iter(known), {}), **inputs, "case_id": CASE_ID}])
    records.write_table(out)
    for step in loaded.after:
        step(out)


def _spec(
    images: Mapping[str, Image],
    masks: Mapping[str, Path],
    labels: Mapping[str, dict[str, str]],
    transform: Transform,
    parameters: str | None,
) -> Spec:
    """The data spec of the pair; `labels`: key -> the regions that the fixed image's label has too."""
    roles = {name: Role(modality=(modality,)) for name, (_, modality) in images.items()}
    all_regions = {"inside": "."}
    known = {name: Mask(of=name.removesuffix("_mask"), labels=all_regions) for name in masks}
    moving = Moving(mask="moving_mask" if "moving_mask" in masks else None)
    register = Register(
        fixed="fixed",
        fixed_mask="fixed_mask" if "fixed_mask" in masks else None,
        moving={"moving": moving},
        transform=transform,
        parameters=parameters,
    )
    known |= {name: Mask(of="moving", labels=regions or all_regions) for name, regions in labels.items()}
    known |= {_drawn(name): Mask(of="fixed", labels=regions) for name, regions in labels.items() if regions}
    return Spec(name="pair", description="One pair of images.", roles=roles, masks=known, register=register)


def _label_names(paths: Sequence[Path]) -> dict[str, tuple[str, Path]]:
    """A key for each label volume, with the file's plain name.

    Raises:
        UsageError: E_NAMES when two would have one key.
    """
    stems = [volume_stem(path) for path in paths]
    keys = ["label_" + re.sub(r"[^a-z0-9_]", "_", stem.lower()) for stem in stems]
    if len(set(keys)) < len(keys):
        raise UsageError("E_NAMES", "Expected label files of different names.")
    return dict(zip(keys, zip(stems, paths, strict=True), strict=True))


def _drawn(key: str) -> str:
    """The key of the fixed image's label that one of the moving image is compared with."""
    return f"fixed_{key}"


def _partners(labels: Mapping[str, tuple[str, Path]], fixed: Sequence[Path]) -> dict[str, Path]:
    """The labels of the fixed image by their keys.

    Raises:
        UsageError: E_OPTION when they are given, but not one for each label of the moving image.
    """
    if fixed and len(fixed) != len(labels):
        what = f"Expected as many labels of the fixed image as of the moving one ({len(labels)}), got {len(fixed)}."
        raise UsageError("E_OPTION", what, "Give --fixed-label once for each --apply-to, in the same order.")
    return {_drawn(key): path for key, path in zip(labels, fixed, strict=False)}


def _common(key: str, moving: MetaTensor, fixed: MetaTensor) -> dict[str, str]:
    """The regions that two label volumes share: a name for every value up to the largest one that both have.

    Raises:
        UsageError: E_OPTION when they have none in common, or one that no mask of a data spec can have.
    """
    values = set(np.unique(moving.numpy())) & set(np.unique(fixed.numpy())) - {0}
    if not values or not 0 < max(values) <= LARGEST_VALUE:
        got = f"{max(values):g}" if values else "none"
        remedy = "Give the same structures the same values in both label volumes."
        raise UsageError("E_OPTION", f"Expected values from 1 to {LARGEST_VALUE} in both labels, got {got}.", remedy)
    return {f"{key}_{value}": "." for value in range(1, int(max(values)) + 1)}


def _save(kind: str, image: MetaTensor, folder: Path) -> Path:
    return save("image", kind, image, writable_folder(folder))[0]


def _require_landmarks(marks: Mapping[str, Path], pair: Mapping[str, Image]) -> None:
    """Refuse landmarks that are not there, or count the voxels of a DICOM series: ingest turns and evens out its axes.

    Raises:
        UsageError: E_INPUT, E_LANDMARKS.
    """
    for path in marks.values():
        require_given(path, "a file of landmarks")
    of_dicom = [landmarks_key(role) for role, (path, _) in pair.items() if path.is_dir()]
    for path in [marks[key] for key in of_dicom if key in marks]:
        try:
            read_landmarks(path, affine=None)
        except CaseError as error:
            raise UsageError(error.code, error.message, error.remedy) from error


def _require_free(out: Path, names: Mapping[str, str]) -> None:
    for name, target in names.items():
        path, source = out / name, out / "cases" / CASE_ID / target
        own = path.is_symlink() or not path.exists() or (source.is_file() and cmp(path, source, shallow=False))
        if not own:
            raise UsageError("E_OUT", f"The output folder has a file {name} of its own.")


def link(out: Path, case_id: str, names: Mapping[str, str]) -> None:
    """Put plain names of what is recorded of a case beside the cases; one without a file goes.

    They are links or, where there are none, copies. `names`: name -> file below the case's folder.
    """
    for name, target in names.items():
        (out / name).unlink(missing_ok=True)
        if (out / "cases" / case_id / target).is_file():
            try:
                (out / name).symlink_to(Path("cases") / case_id / target)
            except OSError:  # a disk without symbolic links
                shutil.copyfile(out / "cases" / case_id / target, out / name)


def _volume(path: Path, modality: str, files: Mapping[Path, MetaTensor], ingested: Path) -> Image:
    """A NIfTI file on its own grid, in mm and plain; a DICOM folder as the one volume that ingest makes of it."""
    return (_save("image", files[path], ingested), modality) if path in files else dicom_volume(path, ingested)


def dicom_volume(path: Path, ingested: Path) -> Image:
    """A folder of one DICOM series as the one volume that ingest makes of it, in a run folder of its own.

    Raises:
        UsageError: E_AMBIGUOUS when it holds more, why the one that it holds is set aside, and what ingest raises.
    """
    found = batch.run(Plan(path, ingested, stages=("ingest",)))
    done = [case[0] for case in found.values() if case[0].status == "done"]
    stopped = [fault for case in found.values() if (fault := case[0].error) is not None]
    if not done and len(stopped) == 1:
        raise UsageError(stopped[0].code, stopped[0].message, stopped[0].remedy)
    if len(done) != 1:
        raise UsageError("E_AMBIGUOUS", f"Expected one volume in {path}, got {len(done)}.", "Name the series' folder.")
    modality = next(row["modality"] for row in records.series_of(ingested, done[0].case_id) or ())
    return ingested / next(item.path for item in done[0].artifacts if item.key == "image"), modality
