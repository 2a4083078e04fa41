"""The table of features: one row a region, image and configuration; its dictionary; and one row a case for networks."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.columns import escape_cell
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import check_affine, spacing_mm
from pipeline.radiomics.configurations import Configuration
from pipeline.radiomics.glossary import Name, names
from pipeline.radiomics.levels import Array
from pipeline.radiomics.perturbation import Perturbations
from pipeline.radiomics.robustness import perturbed_features

Names = Literal["ibsi", "pyradiomics"]
#: What stands in a row before its features.
KEYS = ("case_id", "image", "mask", "label", "region", "configuration", "configuration_sha256", "flags", "error")
#: Whose row it is.
IDENTITY = KEYS[:6]
#: What makes regions of two cases comparable.
ALIKE = ("image", "mask", "region", "configuration")
Plain = dict[str, str]


@dataclass(frozen=True)
class Row:
    """What was measured of one region of one image by one configuration.

    Attributes:
        case_id: whose.
        image: a role, or a file's name.
        mask: a mask's name, or a file's.
        label: the region's value in the mask; None where the mask has none.
        region: the label's name.
        configuration: how it was measured.
        values: IBSI's tag -> value, None where there is none.
        flags: keys of `pipeline.radiomics.flags.FLAGS`.
        error: code and sentence where nothing could be measured.
        versions: the features of perturbed versions of the region; none where it was not perturbed.
    """

    case_id: str
    image: str
    mask: str
    label: int | None
    region: str
    configuration: Configuration
    values: Mapping[str, float | None]
    flags: tuple[str, ...] = ()
    error: str = ""
    versions: tuple[Mapping[str, float | None], ...] = ()

    def plain(self, naming: Names = "ibsi") -> Plain:
        """Column -> text; empty where there is no value. Numbers are written so that reading gives the same again.

        There is one 0: the one without a sign.
        """
        own = (self.case_id, self.image, self.mask, self.label, self.region)
        how = (self.configuration.name, self.configuration.digest, "; ".join(self.flags), self.error)
        found = {key: "" if item is None else str(item) for key, item in zip(KEYS, (*own, *how), strict=True)}
        values = {name: self.values.get(tag) for tag, name in columns(self.values, naming).items()}
        return found | {name: "" if value is None else repr(float(value) + 0.0) for name, value in values.items()}


def with_versions(
    row: Row,
    image: Array,
    mask: Array,
    affine: npt.ArrayLike,
    changes: Perturbations | None,
    label: int = 1,
    device: str = "cpu",
) -> Row:
    """A row with the features of its region's perturbed versions; one without values has none.

    Arguments as in `extract`, and `changes`: what is done to image and mask; None: nothing, the row stays as it is.

    Raises:
        CaseError: E_CONFIG when the values of a version would need too many bins.
    """
    if changes is None or all(value is None for value in row.values.values()):
        return row
    try:
        found = perturbed_features(image, mask, affine, row.configuration.settings, changes, label, device)
    except CaseError as error:
        if error.code != "E_NIFTI":  # values that are not finite lie around the region, not in it
            raise
        return replace(row, flags=(*row.flags, "not_perturbed"))
    volume_mm3 = np.count_nonzero(mask == label) * float(np.prod(spacing_mm(check_affine(affine))))
    coarse = ("few_supervoxels",) if changes.is_coarse_for(volume_mm3) else ()
    return replace(row, versions=tuple(found), flags=(*row.flags, *coarse))


def as_naming(text: str) -> Names:
    """Whose names columns have, as a person has typed it.

    Raises:
        UsageError: E_OPTION.
    """
    for name in get_args(Names):
        if text == name:
            return name
    raise UsageError("E_OPTION", f"Expected one of {', '.join(get_args(Names))} as names, got {text}.")


def alike(row: Plain) -> tuple[str, ...]:
    """What regions of two cases have in common that can be compared: `ALIKE`."""
    return tuple(row[name] for name in ALIKE)


def columns(tags: Iterable[str], naming: Names = "ibsi") -> dict[str, str]:
    """IBSI's tag -> the column's name, for features that have one; in the order of IBSI's files."""
    wanted = set(tags)
    known = {tag: name for tag, name in names().items() if tag in wanted}
    if naming == "ibsi":
        return {tag: tag for tag in known}
    return {tag: name.pyradiomics for tag, name in known.items() if name.pyradiomics}


def as_csv(rows: Sequence[Plain]) -> str:
    """Rows as CSV: all columns that any of them has, in the order of the first that has them.

    A text that a spreadsheet would run as a formula is written as text (OWASP, CSV injection).
    """
    head = list(dict.fromkeys(name for row in rows for name in row)) or list(KEYS)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: escape_cell(text) if name in KEYS else text for name, text in row.items()} for row in rows)
    return stream.getvalue()


def read_csv(path: Path) -> list[Plain]:
    """The rows of a table that `as_csv` has written."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def require_apart(rows: Iterable[Plain]) -> None:
    """Refuse two rows of one region, image and configuration.

    Raises:
        UsageError: E_ROWS.
    """
    seen = set[tuple[str, ...]]()
    for row in rows:
        key = tuple(row[name] for name in IDENTITY)
        if key in seen:
            what = ", ".join(f"{name} {text}" for name, text in zip(IDENTITY, key, strict=True) if text)
            raise UsageError("E_ROWS", f"Expected each region once, got two of {what}.", "Name each case once.")
        seen.add(key)


def by_case(rows: Iterable[Plain]) -> list[Plain]:
    """One row a case, for networks and statistics: `<image>_<mask>_<region>_<configuration>_<feature>`; no flags.

    Columns without any value are left out. Where two regions would have columns of one name, as those of image `x_y`
    and mask `z`, and of image `x` and mask `y_z`, the parts of both are joined by two underlines.

    Raises:
        UsageError: E_ROWS when they have one name even so.
    """
    rows = list(rows)
    begin = prefixes(dict.fromkeys(alike(row) for row in rows))
    found: dict[str, Plain] = {}
    for row in rows:
        prefix = begin[alike(row)]
        values = {f"{prefix}_{name}": text for name, text in row.items() if name not in KEYS and text}
        found.setdefault(row["case_id"], {"case_id": row["case_id"]}).update(values)
    return list(found.values())


def prefixes(kinds: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """What the columns of each kind of region (`ALIKE`) begin with, as `by_case` says.

    Raises:
        UsageError: E_ROWS.
    """
    found = {kind: _joined(kind, "_") for kind in kinds}
    met = Counter(found.values())
    found = {kind: _joined(kind, "__") if met[prefix] > 1 else prefix for kind, prefix in found.items()}
    prefix, most = Counter(found.values()).most_common(1)[0] if found else ("", 0)
    if most > 1:
        what = f"Expected regions, images and configurations that differ in letters or digits, got {prefix} twice."
        raise UsageError("E_ROWS", what, "Rename one of them.")
    return found


def _joined(kind: tuple[str, ...], by: str) -> str:
    image, mask, region, configuration = kind
    parts = (image, mask, *(() if region in ("", mask) else (region,)), configuration)
    return by.join(re.sub(r"\W+", "_", part) for part in parts)


def dictionary(tags: Iterable[str], naming: Names = "ibsi") -> list[Plain]:
    """What each feature is: IBSI's codes, the unit (`x` stands for the image's), and PyRadiomics' name.

    Features that have no name of that kind come last, without a column.
    """
    known, named = names(), columns(tags, naming)
    unnamed = [tag for tag in columns(tags) if tag not in named]
    return [_entry(named.get(tag, ""), known[tag]) for tag in (*named, *unnamed)]


def _entry(column: str, name: Name) -> Plain:
    codes = {"ibsi_tag": name.tag, "ibsi_code": name.code, "ibsi_aggregation": name.aggregation}
    return {"column": column, **codes, "unit": name.unit, "pyradiomics": name.pyradiomics}
