"""The stage `radiomics`: images and masks in; a table of features, and what the report says of it, out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.transforms import Transform

from pipeline.label_measures import recorded_labels
from pipeline.radiomics.configurations import of_spec, read_perturbations
from pipeline.radiomics.features import extract
from pipeline.radiomics.flags import FLAGS
from pipeline.radiomics.glossary import names
from pipeline.radiomics.summary import unit_in
from pipeline.radiomics.table import KEYS, Plain, Row, with_versions
from pipeline.spec.spec import Spec
from pipeline.store.sections import Panel, Picture, Regions, Section, Sections, Table
from pipeline.volumes import affine_of
from pipeline.words import clean, in_words, number_text, with_unit

TABLE, VERSIONS = "radiomics", "radiomics_versions"
#: Columns of the report's table: IBSI's tag -> its words.
SHOWN = {
    "morph_volume": "Volume",
    "morph_sphericity": "Sphericity",
    "stat_mean": "Mean",
    "stat_cov": "Coefficient of variation",
    "ih_entropy": "Entropy",
    "cm_joint_entr_3D_comb": "Joint entropy (GLCM)",
}
CAPTION = "The regions that were measured, on the image's own grid; planes through the first of them."


@dataclass(frozen=True)
class Measurable:
    """An image and a mask on its grid.

    Attributes:
        image: role.
        mask: its name in the data spec.
        key: of the label image in the case.
        labels: name -> value; None: what the stage that made the mask has recorded.
    """

    image: str
    mask: str
    key: str
    labels: Mapping[str, int] | None

    @property
    def carried(self) -> bool:
        """Whether the mask was drawn on another image."""
        return self.key != self.mask


def measurables(spec: Spec, carried: Mapping[tuple[str, str], str]) -> list[Measurable]:
    """What a data spec asks to be measured.

    Args:
        spec: the data spec.
        carried: mask and role -> key of the mask on the grid of that role's image, for masks drawn on another.
    """
    return [
        Measurable(role, mask, carried.get((mask, role), mask), spec.mask_labels.get(mask))
        for role in spec.radiomics.images
        for mask in spec.measured_in(role)
    ]


class Radiomicsd(Transform):
    """Measure a case: `radiomics`, one row a region, image and configuration.

    Args:
        spec: the data spec, with a section `radiomics`.
        carried: mask and role -> key of the mask on the grid of that role's image, for masks drawn on another.
        device: where filters are computed.

    Raises:
        UsageError: E_CONFIG for settings that are none.
    """

    def __init__(self, spec: Spec, carried: Mapping[tuple[str, str], str], device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.measured = measurables(spec, carried)
        self.fixed, self.configurations = spec.fixed, of_spec(spec.radiomics)
        self.wanted, self.changes = spec.radiomics.labels, read_perturbations(spec.radiomics.robustness)
        self.displays = {role: spec.displays[role] for role in self.configurations}

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return {TABLE: "table", **({VERSIONS: "table"} if self.changes else {})}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Measure.

        Args:
            data: images and label images (1, I, J, K), all of an image on its grid; `records` of the stages before.

        Raises:
            CaseError: E_GRID, E_LABEL, E_NIFTI, E_CONFIG.
        """
        rows = [row for item in self.measured if item.image in data for row in self._rows(data, item)]
        doubts = [f"{row.image}, {row.mask} {row.region}: {FLAGS[flag]}" for row in rows for flag in row.flags]
        table = pd.DataFrame([_as_numbers(row.plain()) for row in rows], columns=None if rows else KEYS)
        measures = {**(data.get("measures") or {}), "rows": len(rows)}
        made: dict[Hashable, Any] = {TABLE: table, **({VERSIONS: _versions(rows)} if self.changes else {})}
        return {**data, **made, "measures": measures, "flags": [*data.get("flags", ()), *dict.fromkeys(doubts)]}

    def _rows(self, case: Mapping[Hashable, Any], item: Measurable) -> Iterator[Row]:
        for label, value in self._labels(case, item).items():
            for how in self.configurations[item.image]:
                yield self._row(case, item, Row(case["case_id"], item.image, item.mask, value, label, how, {}))

    def _row(self, case: Mapping[Hashable, Any], item: Measurable, row: Row) -> Row:
        settings = row.configuration.settings
        if item.key not in case:
            return replace(row, values=dict.fromkeys(settings.tags), flags=("not_aligned",))
        image, mask = case[item.image], case[item.key]
        region = np.asarray(mask.numpy()[0] == row.label, np.uint8)  # a mask without this label is an empty region
        given = (image.numpy()[0], region, affine_of(image))
        found = extract(*given, settings, mask_affine=affine_of(mask), device=str(self.device))
        flags = (*found.flags, *(("carried",) if item.carried else ()))
        return with_versions(
            replace(row, values=found.values, flags=flags), *given, self.changes, device=str(self.device)
        )

    def _labels(self, case: Mapping[Hashable, Any], item: Measurable) -> dict[str, int]:
        """The labels of a mask that are measured; none where the case does not have it."""
        if item.mask not in case:
            return {}
        known = recorded_labels(item.mask, case.get("records") or ()) if item.labels is None else item.labels
        return {name: value for name, value in known.items() if not self.wanted or name in self.wanted}

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """A table of the main features, and each image with its regions."""
        rows = case[TABLE].to_dict("records")
        settings = {f"{row['configuration']} ({row['configuration_sha256']})" for row in rows}
        sentences = (
            "Features of the Image Biomarker Standardisation Initiative, of original intensities; all are in the table "
            f"radiomics.csv. Settings: {', '.join(sorted(settings)) or 'none'}.",
        )
        table = Table("", ("Region", "Image", "Settings", *SHOWN.values(), "Flags"), tuple(map(self._shown, rows)))
        regions = tuple(self._carried_regions(case))
        pictures = tuple(self._pictures(case))
        return Sections((Section("Radiomics", sentences, (table,) if rows else (), pictures),), regions=regions)

    def _shown(self, row: Mapping[Hashable, Any]) -> tuple[str, ...]:
        unit, known = self.displays[row["image"]].unit, names()
        values = (
            with_unit(number_text(value), unit_in(known[tag].unit, unit)) if np.isfinite(value) else "–"
            for tag, value in ((tag, row.get(tag, np.nan)) for tag in SHOWN)
        )
        region = in_words(row["mask"]) + ("" if row["region"] == row["mask"] else f": {row['region']}")
        return clean(region), self.displays[row["image"]].name, row["configuration"], *values, row["flags"] or "none"

    def _pictures(self, case: Mapping[Hashable, Any]) -> Iterator[Picture]:
        for role, display in self.displays.items():
            keys = [item.key for item in self.measured if item.image == role and item.key in case]
            if role in case and keys:
                title = f"Regions in {display.name}"
                yield Picture(f"radiomics_{role}", title, CAPTION, (Panel(display.name, role),), keys[0])

    def _carried_regions(self, case: Mapping[Hashable, Any]) -> Iterator[Regions]:
        """The label images that this stage has made; those on the fixed grid are registration's."""
        for item in self.measured:
            if item.carried and item.image != self.fixed and item.key in case:
                named = {value: f"{in_words(item.mask)}: {label}" for label, value in self._labels(case, item).items()}
                yield Regions(item.key, (item.image,), named)


def image_kinds(spec: Spec) -> dict[str, str]:
    """What the stage reads of ingest and segmentation: key -> kind."""
    roles = list(spec.radiomics.images)
    masks = [mask for role in roles for mask in spec.measured_in(role)]
    return {**dict.fromkeys(roles, "image?"), **dict.fromkeys(masks, "label?")}


def _as_numbers(row: Plain) -> dict[str, str | float]:
    """Features as numbers, which no spreadsheet takes for a formula; NaN where there is none."""
    return {name: text if name in KEYS else float(text or "nan") for name, text in row.items()}


def _versions(rows: list[Row]) -> pd.DataFrame:
    """The features of all perturbed versions, each under its region's keys."""
    found = [{**_as_numbers(row.plain()), **version} for row in rows for version in row.versions]
    return pd.DataFrame(found, columns=None if found else KEYS)
