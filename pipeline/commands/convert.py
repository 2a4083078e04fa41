"""`tandem convert nnunet` and `tandem convert back`: datasets of nnU-Net out of what there is, and labels back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cases import Fault
from pipeline.columns import PATIENT, read_rows
from pipeline.commands.typed import pairs
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.segmentation import sources
from pipeline.segmentation.dataset import Source, Written, write_back, write_dataset
from pipeline.segmentation.splits import FOLDS
from pipeline.spec.paths import placeholders
from pipeline.spec.spec import Spec, load_spec, of_run
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.words import counted

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: Option -> the shipped data spec that knows the files of that pack.
PACKS = {"hippocampus": "hippocampus", "sts": "sarcoma"}
_PATIENTS = "Say whose each case is: --patients TABLE.csv with the columns case_id and patient_id."


def convert_nnunet(  # noqa: PLR0913 - each is an option of the command
    out: str | Path,
    dataset: int,
    name: str,
    spec: str | Path = "",
    cases: str | Path | None = None,
    msd: str | Path | None = None,
    nifti: Sequence[str] = (),
    hippocampus: str | Path | None = None,
    sts: str | Path | None = None,
    patients: str | Path | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    copy: bool = False,
) -> Written:
    """Write a raw dataset of nnU-Net: `tandem convert nnunet`.

    Of `cases`, `msd`, `nifti`, `hippocampus` and `sts` one is given.

    Args:
        out: the folder of raw datasets (`nnUNet_raw`).
        dataset: its number, from 1 to 999.
        name: of the dataset, letters and digits.
        spec: a data spec with the section `segment`; for `cases` the run's own when left out, for `msd` and the packs
            none is needed.
        cases: a run folder of Tandem.
        msd: a dataset of the Medical Segmentation Decathlon.
        nifti: patterns of paths, `ROLE=PATTERN` for each channel and the mask.
        hippocampus: the pack of hippocampi.
        sts: the pack of sarcomas.
        patients: a CSV with `case_id` and `patient_id`, where a case is not a patient of its own.
        folds: how many.
        seed: of the folds.
        copy: copy files instead of linking them.

    Returns:
        What was written, and which cases failed.

    Raises:
        UsageError: E_OPTION, E_SPEC, E_LABEL, E_NO_CASES, E_FOLD, E_OUT, E_EXTRA and others.
    """
    given = {"cases": cases, "msd": msd, "nifti": nifti, "hippocampus": hippocampus, "sts": sts}
    chosen = [key for key, value in given.items() if value]
    if len(chosen) != 1:
        what = f"Expected one of --{', --'.join(given)}, got {' and '.join(chosen) or 'none'}."
        raise UsageError("E_OPTION", what, "Say where the cases are by one of them.")
    whose = read_patients(patients)
    if cases:
        source = _of_run(Path(cases), of_run(str(spec), cases), whose)
    elif msd:
        source = sources.of_decathlon(Path(msd), whose)
    elif nifti:
        source = sources.of_patterns(pairs(nifti, "mr=/data/{case}_mr.nii.gz"), load_spec(spec), whose)
    else:
        source = _of_pack(Path(str(hippocampus or sts)), load_spec(str(spec) or PACKS[chosen[0]]), whose)
    return write_dataset(source, Path(out), (dataset, name), read, folds, seed, copy)


def convert_back(predictions: str | Path, dataset: str | Path, out: str | Path) -> dict[str, Fault | None]:
    """Write nnU-Net's label images with the values and on the grids of the source: `tandem convert back`.

    Args:
        predictions: a folder of `case.nii.gz`.
        dataset: the folder that `convert_nnunet` has written.
        out: the folder for the label images.

    Returns:
        Case -> why it failed, or None.

    Raises:
        UsageError: E_NO_CASES, E_INPUT, E_OUT, E_DISK.
    """
    return write_back(Path(predictions), Path(dataset), Path(out), read)


def read(path: Path) -> list[MetaTensor]:
    """The channels of a NIfTI file, each (1, I, J, K) on its own grid.

    Raises:
        CaseError: E_NIFTI, E_UNREADABLE.
    """
    from pipeline.nifti.volume import image_of, read_channels

    return [image_of(part) for part in read_channels(path)]


def show_written(found: Written) -> int:
    """Say what was written; the exit code."""
    for case, fault in found.failed.items():
        echo(f"{case}: {fault.code}: {fault.message} {fault.remedy}", error=True)
    if found.copied:
        echo(f"{counted(found.copied, 'file')} copied: this disk cannot link them", error=True)
    for label, count in found.rare.items():
        echo(f"Only {counted(count, 'patient')} show {label}: not every fold holds it", error=True)
    echo(f"{counted(len(found.shown), 'training case')}, {len(found.failed)} failed: {found.folder}")
    return int(bool(found.failed))


def show_back(found: Mapping[str, Fault | None], out: Path) -> int:
    """Say what was written; the exit code."""
    failed = {case: fault for case, fault in found.items() if fault}
    for case, fault in failed.items():
        echo(f"{case}: {fault.code}: {fault.message} {fault.remedy}", error=True)
    echo(f"{counted(len(found) - len(failed), 'label image')}, {len(failed)} failed: {out}")
    return int(bool(failed))


def _of_run(out: Path, spec: Spec, patients: Mapping[str, str]) -> Source:
    from pipeline.registration.dictionary import aligned_images, aligned_key

    section = spec.segmentation
    images = dict(zip(section.channels, aligned_images(spec, section.channels), strict=True))
    moved = section.label and spec.mask_roles[section.label] in spec.moving
    label = aligned_key(section.label) if moved else section.label
    return sources.of_run(out, spec, images, label, patients or _patients_of_run(out, spec))


def _patients_of_run(out: Path, spec: Spec) -> dict[str, str]:
    """Case -> pseudonym of the patient; nothing where a case is a patient.

    Raises:
        UsageError: E_FOLD when nothing says whose the cases are.
    """
    by_files = any("session" in placeholders(role.files) for role in spec.roles.values() if role.files)
    if spec.case == "patient" and not by_files:
        return {}
    names = Pseudonyms(out)
    rows = [row for row in names.kept("series.csv") if row.get(PATIENT)]
    if not rows:
        what = f"Expected to know whose each case of {out} is, for the folds: a patient may have several."
        raise UsageError("E_FOLD", what, _PATIENTS)
    return {row["case_id"]: names.of("patient", row[PATIENT]) for row in rows}


def _of_pack(root: Path, spec: Spec, patients: Mapping[str, str]) -> Source:
    section = spec.segmentation
    files = {name: role.files or "" for name, role in spec.roles.items()}
    files |= {name: mask.files or "" for name, mask in spec.masks.items()}
    patterns = {key: files[key] for key in (*section.channels, section.label) if key in files}
    return sources.of_patterns(patterns, spec, patients, root)


def read_patients(table: str | Path | None) -> dict[str, str]:
    """Case -> patient of a CSV with `case_id` and `patient_id`; nothing where there is none.

    Raises:
        UsageError: E_TABLE.
    """
    rows = read_rows(Path(table), ["case_id", PATIENT]) if table is not None else []
    return {row["case_id"]: row[PATIENT] for row in rows}
