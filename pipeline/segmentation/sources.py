"""What a dataset can be made of: a run folder of Tandem, files found by patterns, or one of the Decathlon (MSD)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.segmentation.dataset import ENDING, RawCase, Source
from pipeline.segmentation.labels import BACKGROUND, LabelMap
from pipeline.spec.paths import compile_pattern, name_below, owner
from pipeline.spec.roles import role_of
from pipeline.spec.spec import Spec
from pipeline.spec.stages import wrong_channel
from pipeline.store.files import walk
from pipeline.store.records import FindCases

Patients = Mapping[str, str]
_WILD = re.compile(r"[{*?]")
_PATTERN = "Write {case} where the case's name stands, such as DATA/{case}_mr.nii.gz."


def labels_of(spec: Spec) -> LabelMap:
    """How the labels of a data spec's mask are numbered.

    Raises:
        UsageError: E_SPEC when the section `segment` names no mask; E_LABEL.
    """
    section = spec.segmentation
    if not section.label:
        what = f"Expected a `label` in the section `segment` of the data spec {spec.name}, got none."
        raise UsageError("E_SPEC", what, "Name the mask that is to be learned.")
    return LabelMap.of(list(spec.masks[section.label].label_values.items()), section.regions, section.ignore)


def of_run(out: Path, spec: Spec, images: Mapping[str, str], label: str, patients: Patients) -> Source:
    """The cases of a run folder; one that lacks an image is going to fail, one that lacks the mask is to be predicted.

    Args:
        out: the run folder.
        spec: its data spec.
        images: role -> key of its image on the common grid.
        label: key of the mask on that grid.
        patients: case -> patient; a case that is not in it is a patient of its own.

    Raises:
        UsageError: E_NO_CASES, E_SPEC, E_LABEL.
    """
    reads = {**dict.fromkeys(images.values(), "image?"), label: "label?"}
    cases = [
        RawCase(
            found["case_id"],
            patients.get(found["case_id"], found["case_id"]),
            {role: found[key] for role, key in images.items() if key in found},
            found.get(label),
        )
        for found in FindCases(out, reads)()
    ]
    return Source(spec.segmentation.channels, labels_of(spec), cases, spec.name)


def of_patterns(patterns: Mapping[str, str], spec: Spec, patients: Patients, root: Path | None = None) -> Source:
    """The cases of files that lie anywhere.

    Args:
        patterns: role or mask -> pattern of paths, such as `/data/{case}_mr.nii.gz`; `{case}` is the patient, and
            `{session}` one of a patient's visits.
        spec: the data spec, with the section `segment`.
        patients: case -> patient, where `{case}` is not.
        root: the folder below which patterns are; each pattern's own folders when None.

    Raises:
        UsageError: E_OPTION for a pattern of another key, or one that does not say where the case is, E_AMBIGUOUS when
            two files are one case's, E_NO_CASES, E_SPEC, E_LABEL, E_EMPTY.
    """
    section, labels = spec.segmentation, labels_of(spec)
    wanted = [*section.channels, section.label]
    if sorted(patterns) != sorted(wanted):
        what = f"Expected a pattern for each of {', '.join(wanted)}, got {', '.join(patterns) or 'none'}."
        raise UsageError("E_OPTION", what, f"Give --nifti {wanted[0]}='DATA/{{case}}_{wanted[0]}.nii.gz' and so on.")
    files = {key: _found(key, pattern, root) for key, pattern in patterns.items()}
    owners = sorted({whose for found in files.values() for whose in found})
    cases = []
    for whose in owners:
        held = {key: found[whose] for key, found in files.items() if whose in found}
        case_id, label = "_".join(whose), held.pop(section.label, None)
        cases.append(RawCase(case_id, patients.get(case_id, whose[0]), held, label))
    return Source(section.channels, labels, cases, spec.name)


def of_decathlon(folder: Path, patients: Patients) -> Source:
    """A dataset of the Medical Segmentation Decathlon: `Task04_Hippocampus` with its dataset.json.

    Args:
        folder: the dataset.
        patients: case -> patient; a case that is not in it is a patient of its own.

    Raises:
        UsageError: E_INPUT when there is no usable dataset.json; E_LABEL.
    """
    try:
        # in pairs, so that a name that comes twice is seen
        text = (folder / "dataset.json").read_text(encoding="utf-8")
        about = dict(json.loads(text, object_pairs_hook=list))
        modality, labels = dict(about["modality"]), [(str(name), int(value)) for value, name in about["labels"]]
        training = [(folder / dict(item)["image"], folder / dict(item)["label"]) for item in about["training"]]
        test = [folder / str(item) for item in about.get("test", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"Expected a dataset of the Decathlon in {folder}, got no usable dataset.json ({type(error).__name__})."
        raise UsageError("E_INPUT", what) from error
    names = [str(modality[key]) for key in sorted(modality, key=int)]
    roles = [role_of(name) for name in names]
    channels = dict(zip(roles, names, strict=True))
    for role, name in channels.items():
        if wrong := wrong_channel(role, name, "CT" if name.upper().startswith("CT") else "MR"):
            raise UsageError("E_SPEC", f"The dataset.json of {folder.name}: {wrong}.", "Correct its `modality`.")
    cases = []
    for image, label in [*training, *((path, None) for path in test)]:
        case_id = image.name.removesuffix(ENDING)
        cases.append(RawCase(case_id, patients.get(case_id, case_id), dict.fromkeys(roles, image), label))
    values = [(name, value) for name, value in labels if (name.casefold(), value) != (BACKGROUND, 0)]
    return Source(channels, LabelMap.of(values), cases)


def _found(key: str, pattern: str, root: Path | None) -> dict[tuple[str, ...], Path]:
    """The files that a pattern names, by their owners: case, and session where the pattern has it."""
    base, below = (root, pattern) if root else _parted(pattern)
    try:
        expression = compile_pattern(below)
    except ValueError as error:
        raise UsageError("E_OPTION", f"The pattern of {key}: {error}.".replace("`files`", "it"), _PATTERN) from error
    found: dict[tuple[str, ...], Path] = {}
    for path in walk(base):
        match = None if path.name.startswith("._") else expression.fullmatch(name_below(base, path))
        if match is None:
            continue
        whose = owner(match)
        if whose in found:
            what = f"Expected one file as {key} of the case {'_'.join(whose)}, got two."
            raise UsageError("E_AMBIGUOUS", what, "Sharpen the pattern.")
        found[whose] = path
    return found


def _parted(pattern: str) -> tuple[Path, str]:
    """The folder that a pattern begins with, and what comes below it."""
    wild = _WILD.search(pattern)
    folder, _, _ = pattern[: wild.start() if wild else len(pattern)].rpartition("/")
    rest = pattern[len(folder) :].lstrip("/")
    return Path(folder or ("/" if pattern.startswith("/") else ".")), rest
