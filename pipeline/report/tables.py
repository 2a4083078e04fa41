"""The rows of a report's tables, as texts: qualities, measures, volumes, stages, outputs, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor

from pipeline.cases import Artifact, Geometry, Record
from pipeline.geometry import orientation_of, spacing_mm
from pipeline.report.pictures import Roles, image_of
from pipeline.volumes import affine_of
from pipeline.words import NOT_AVAILABLE, clean, in_words, measure_text, role_in_words, unit_of, value_text

GRADES = {"pass": "Pass", "warn": "Warning", "fail": "Fail"}
#: Tilted by less than this a grid counts as straight.
STRAIGHT_DEG = 0.5
HASH_DIGITS = 12
#: Moving role -> its quality, None where it was aligned but not judged.
Judged = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class Measure:
    """A measured value: name in words, value as text, unit (empty where dimensionless), and both joined."""

    name: str
    value: str
    unit: str
    text: str


@dataclass(frozen=True)
class Quality:
    """How well a moving image was aligned; `grade` is `pass`, `warn`, `fail` or empty when it was not judged."""

    role: str
    name: str
    grade: str
    label: str
    reason: str
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Volume:
    """One row of the table of volumes; all texts."""

    name: str
    voxels: str
    spacing: str
    orientation: str
    field_of_view: str
    verdict: str
    notes: tuple[str, ...]

    @property
    def remarks(self) -> str:
        """Verdict and notes as one text."""
        return ", ".join(part for part in (self.verdict, *self.notes) if part) or "–"


@dataclass(frozen=True)
class StageRow:
    """One row of the table of stages; `key` is the resume key's first digits."""

    stage: str
    status: str
    seconds: str
    key: str
    error: str


@dataclass(frozen=True)
class Output:
    """One row of the table of outputs; `sha256` has the hash's first digits."""

    stage: str
    name: str
    kind: str
    sha256: str


def judged(case: Mapping[str, Any], records: Sequence[Record], roles: Roles) -> Judged:
    """Moving role -> its quality; None where it was aligned but not judged; absent where it was never aligned."""
    measures = _merged(case, records)
    made = {item.key for record in records for item in record.artifacts}
    found: dict[str, Mapping[str, Any] | None] = {}
    for role in roles.moving:
        quality = case.get(f"{role}_quality", measures.get(f"{role}_quality"))
        if isinstance(quality, Mapping):
            found[role] = quality
        elif image_of(case, f"{role}_aligned") is not None or f"{role}_aligned" in made:
            found[role] = None
    return found


def _merged(case: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for record in records:
        merged |= record.measures
    return merged | dict(case.get("measures") or {})


def quality(role: str, found: Mapping[str, Any] | None, roles: Roles) -> Quality:
    """One alignment's quality in words.

    Args:
        role: the moving role.
        found: `verdict`, `reason` and numbers with the unit in the key; None when it was not judged.
        roles: which images belong together.
    """
    name = f"{in_words(role)} aligned to {in_words(roles.fixed)}"
    if found is None:
        return Quality(role, name, "", "Not judged", "No quality verdict was recorded.", ())
    grade = str(found.get("verdict", ""))
    numbers = tuple(_measure(key, value) for key, value in found.items() if key not in ("verdict", "reason"))
    known = grade in GRADES
    return Quality(
        role, name, grade if known else "", GRADES.get(grade, "Not judged"), value_text(found.get("reason")), numbers
    )


def _measure(key: str, value: Any) -> Measure:
    return Measure(in_words(key), value_text(value), unit_of(key), measure_text(key, value))


def measures(
    case: Mapping[str, Any], records: Sequence[Record], qualities: Judged, elsewhere: tuple[str, ...] = ()
) -> tuple[tuple[str, tuple[Measure, ...]], ...]:
    """Stage -> measures; without times, which stand with the stages, and what the qualities say already.

    Args:
        case: its `measures` come last.
        records: of its stages.
        qualities: of its alignments.
        elsewhere: beginnings of keys that stand in another part of the report.
    """
    groups = [(clean(record.stage), record.measures) for record in records]
    known = {key for _, measures in groups for key in measures}
    in_quality = {f"{role}_{name}" for role, found in qualities.items() for name in found or ()}
    rest = {key: value for key, value in dict(case.get("measures") or {}).items() if key not in known}
    rows = []
    for stage, measures in (*groups, ("this report", rest)):
        kept = tuple(
            _measure(key, value)
            for key, value in measures.items()
            if key != "seconds" and key not in in_quality and not key.endswith("_quality")
            if not key.startswith(elsewhere)
        )
        if kept:
            rows.append((stage, kept))
    return tuple(rows)


def volumes(
    case: Mapping[str, Any],
    records: Sequence[Record],
    qualities: Judged,
    flags: Sequence[str],
    roles: Roles,
) -> tuple[Volume, ...]:
    """One row for each image in the case, and for each that a record describes where the image itself is not there."""
    found = {key: _geometry(value) for key, value in case.items() if isinstance(value, MetaTensor)}
    for record in records:
        for item in record.artifacts:
            if item.geometry is not None:
                found.setdefault(item.key, item.geometry)
    order = sorted(found, key=lambda key: (_rank(key, roles), key))
    return tuple(_volume(key, found[key], _verdict_of(key, qualities), flags, roles) for key in order)


def _rank(key: str, roles: Roles) -> tuple[int, int]:
    known = (roles.fixed, *roles.moving)
    role = next((name for name in known if key == name or key.startswith(f"{name}_")), "")
    return (known.index(role) if role else len(known)), int(key != role)


def _verdict_of(key: str, qualities: Judged) -> str:
    role = key.removesuffix("_aligned")
    if role == key or role not in qualities:
        return ""
    return GRADES.get(str((qualities[role] or {}).get("verdict", "")), "Not judged")


def _geometry(image: MetaTensor) -> Geometry:
    return Geometry(tuple(image.shape), tuple(tuple(row) for row in affine_of(image).tolist()))


def _volume(key: str, geometry: Geometry, verdict: str, flags: Sequence[str], roles: Roles) -> Volume:
    shape, spacing = np.asarray(geometry.shape[-3:]), spacing_mm(geometry.affine)
    channels = geometry.shape[0] if len(geometry.shape) == 4 else 1
    counted = " × ".join(str(size) for size in shape)
    return Volume(
        name=role_in_words(key, roles.fixed),
        voxels=counted if channels == 1 else f"{counted}, {channels} channels",
        spacing=" × ".join(f"{mm:.2f}" for mm in spacing),
        orientation=_orientation(geometry.affine),
        field_of_view=" × ".join(f"{mm:.0f}" for mm in shape * spacing),
        verdict=verdict,
        notes=tuple(f"note {number}" for number, flag in enumerate(flags, start=1) if _is_about(flag, key)),
    )


def _orientation(affine: Sequence[Sequence[float]]) -> str:
    """The nearest axes, and the largest angle by which the grid is tilted against them."""
    axes = np.asarray(affine, float)[:3, :3] / spacing_mm(affine)
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0.0, 1.0))))
    letters = orientation_of(affine)
    return letters if tilt < STRAIGHT_DEG else f"{letters}, tilted {tilt:.0f}°"


def _is_about(flag: str, key: str) -> bool:
    """Whether a flag names a key as a word of its own."""
    words = "".join(character if character.isalnum() or character == "_" else " " for character in flag).split()
    return key in words


def stage_row(record: Record) -> StageRow:
    """One stage's row."""
    error = f"{clean(record.error.code)}: {clean(record.error.message)}" if record.error else ""
    seconds = measure_text("seconds", record.measures.get("seconds"))
    key = clean(record.key[:HASH_DIGITS]) or NOT_AVAILABLE
    return StageRow(clean(record.stage), clean(record.status), seconds, key, error)


def output(stage: str, item: Artifact) -> Output:
    """One output's row."""
    return Output(clean(stage), clean(item.key), clean(item.kind), clean(item.sha256[:HASH_DIGITS]) or NOT_AVAILABLE)


def versions(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Software -> version; several where stages ran with different ones."""
    names = sorted({name for record in records for name in record.versions}, key=str.lower)
    return tuple(
        (clean(name), ", ".join(unique([record.versions[name] for record in records if name in record.versions])))
        for name in names
    )


def unique(texts: Sequence[str]) -> tuple[str, ...]:
    """Cleaned texts, each once, in their first order."""
    return tuple(dict.fromkeys(clean(text) for text in texts))
