"""What is known of every case, whatever its stages say: tables of volumes, measures, stages, outputs and versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.cases import Geometry, Record
from pipeline.geometry import orientation_of, spacing_mm
from pipeline.report.images import made
from pipeline.store.sections import Table
from pipeline.words import NOT_AVAILABLE, clean, in_words, measure_text, value_text

#: Tilted by less than this a grid counts as straight.
STRAIGHT_DEG = 0.5
HASH_DIGITS = 12
#: A verdict's grade as it is said.
_SAID = {"pass": "passed", "warn": "warning", "fail": "failed"}


def volumes(
    records: Sequence[Record], names: Mapping[str, str], notes: Sequence[str], flat: Collection[str] = ()
) -> Table:
    """The volumes that the stages have made, with their grids.

    Args:
        records: of the case's stages.
        names: key -> what the image is called, where a stage says so.
        notes: all notes of the case; one that names a volume's key is referred to.
        flat: keys of images whose axes are none of the patient's: nothing of them is told in mm.
    """
    unfit = {key for record in records if record.verdict for key in record.verdict.unfit}
    found = {item.key: item.geometry for record in records for item in made(record) if item.geometry}
    rows = []
    for key, geometry in found.items():
        remarks = ["not fit for use"] if key in unfit else []
        remarks += [f"note {number}" for number, note in enumerate(notes, start=1) if _is_about(note, key)]
        grid = _grid(geometry)
        grid = (grid[0], *["–"] * (len(grid) - 1)) if key in flat else grid
        rows.append((clean(names.get(key, in_words(key))), *grid, ", ".join(remarks) or "–"))
    columns = ("Volume", "Voxels", "Voxel size, mm", "Axes", "Field of view, mm", "Remarks")
    return Table("Volumes", columns, tuple(rows))


def _grid(geometry: Geometry) -> tuple[str, ...]:
    """Voxels, their size, the axes and the field of view, as texts."""
    shape, spacing = np.asarray(geometry.shape[-3:]), spacing_mm(geometry.affine)
    channels = geometry.shape[0] if len(geometry.shape) == 4 else 1
    counted = " × ".join(str(size) for size in shape)
    return (
        counted if channels == 1 else f"{counted}, {channels} channels",
        " × ".join(f"{mm:.2f}" for mm in spacing),
        _orientation(geometry.affine),
        " × ".join(f"{mm:.0f}" for mm in shape * spacing),
    )


def _orientation(affine: Sequence[Sequence[float]]) -> str:
    """The nearest axes, and the largest angle by which the grid is tilted against them."""
    axes = np.asarray(affine, float)[:3, :3] / spacing_mm(affine)
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0.0, 1.0))))
    letters = orientation_of(affine)
    return letters if tilt < STRAIGHT_DEG else f"{letters}, tilted {tilt:.0f}°"


def _is_about(note: str, key: str) -> bool:
    """Whether a note names a key as a word of its own."""
    return key in "".join(letter if letter.isalnum() or letter == "_" else " " for letter in note).split()


def measures(records: Sequence[Record]) -> Table:
    """Every number and text that a stage has recorded, but for its time, which stands with the stages."""
    rows = [
        (clean(record.stage), in_words(key), measure_text(key, value))
        for record in records
        for key, value in _flat(record.measures)
        if key != "seconds"
    ]
    return Table("", ("Stage", "Measure", "Value"), tuple(rows))


def _flat(measures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values, those of mappings with the mapping's key before them."""
    for key, value in measures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}_")
        else:
            yield f"{before}{key}", value


def stages(records: Sequence[Record]) -> Table:
    """What was run, how it ended and how long it took."""
    rows = [
        (
            clean(record.stage),
            clean(record.status) + (f", verdict {_SAID[record.verdict.grade]}" if record.verdict else ""),
            measure_text("seconds", record.measures.get("seconds")),
            clean(record.key[:HASH_DIGITS]) or NOT_AVAILABLE,
            f"{clean(record.error.code)}: {clean(record.error.message)}" if record.error else "–",
        )
        for record in records
    ]
    return Table("Stages", ("Stage", "Status", "Time", "Resume key", "Error"), tuple(rows))


def found(rows: Sequence[Mapping[str, str]], reasons: bool) -> Table:
    """What ingest found of a case: a row a series or a file, those with a role first.

    Args:
        rows: of `series.csv`.
        reasons: also why each has no role, or none of its own.
    """
    columns = ("Series", "Modality", "Voxels", "Voxel size, mm", "Became", *(("Why",) if reasons else ()))
    order = {"chosen": 0, "not an image": 2}
    ordered = sorted(rows, key=lambda row: order.get(row["verdict"], 1))
    return Table("", columns, tuple(_found_row(row)[: len(columns)] for row in ordered))


def _found_row(row: Mapping[str, str]) -> tuple[str, ...]:
    """A row as texts; of DICOM the grid stands in several columns, and what has no pixels has rows of 0."""
    sides = [row.get(name) or "0" for name in ("columns", "rows", "instances")]
    voxels = row.get("voxels") or ("" if "0" in sides else " x ".join(sides))
    size = row.get("voxel_size_mm") or " x ".join(filter(None, (row.get("pixel_spacing_mm"), row.get("slice_step_mm"))))
    no_image = row["verdict"] == "not an image"
    code, why = ("", "") if no_image else (row["code"], row["reason"])
    became = row["role"] if row["verdict"] == "chosen" else " ".join(filter(None, (row["verdict"], code)))
    name = ", ".join(filter(None, (row["series"], row.get("part"))))
    texts = (name, row["modality"], voxels.replace("x", "×"), size.replace("x", "×"), became, why)
    return tuple(clean(text) or "–" for text in texts)


def outputs(records: Sequence[Record]) -> Table:
    """What each stage wrote."""
    rows = [
        (clean(record.stage), clean(item.key), clean(item.kind), clean(item.sha256[:HASH_DIGITS]) or NOT_AVAILABLE)
        for record in records
        for item in record.artifacts
    ]
    return Table("Outputs", ("Stage", "Output", "Kind", "SHA-256"), tuple(rows))


def versions(records: Sequence[Record]) -> Table:
    """Software and version; several where stages ran with different ones."""
    names = sorted({name for record in records for name in record.versions}, key=str.lower)
    rows = [
        (clean(name), value_text(unique([record.versions[name] for record in records if name in record.versions])))
        for name in names
    ]
    return Table("Software", ("Package", "Version"), tuple(rows))


def unique(texts: Sequence[str]) -> tuple[str, ...]:
    """Cleaned texts, each once, in their first order."""
    return tuple(dict.fromkeys(clean(text) for text in texts))
