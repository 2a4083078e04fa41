"""What is written of features: the tables that explain each other, the pages of regions, and maps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.radiomics.configurations import Configuration
from pipeline.radiomics.glossary import names
from pipeline.radiomics.maps import feature_maps
from pipeline.radiomics.reporting import sheet
from pipeline.radiomics.robustness import Agreement, Values, agreements
from pipeline.radiomics.settings import Settings
from pipeline.radiomics.summary import flag_sentences, main_rows, unit_in, values_of
from pipeline.radiomics.table import (
    ALIKE,
    KEYS,
    Names,
    Plain,
    alike,
    as_csv,
    by_case,
    columns,
    dictionary,
    require_apart,
)
from pipeline.store.files import replaced, save_text, writable_folder, write_atomic
from pipeline.store.records import versions
from pipeline.words import counted

if TYPE_CHECKING:
    from pipeline.nifti.volume import Nifti
    from pipeline.report.regions import RegionPage

#: What may stand beside a table, under its name.
ENDINGS = ("_by_case.csv", "_dictionary.csv", "_reporting.md", "_robustness.csv", ".html", ".pdf")
#: So many regions have a place on the pages: of 900 they took 6 GB of memory, and a browser had 94 MB to open.
SHOWN = 40
#: The packages that numbers come from.
SOFTWARE = ("tandem-imaging", "numpy", "nibabel")


def require_table(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse, before anything is measured, a table that could not be written, or that would replace an input.

    Args:
        out: the table.
        inputs: the files that are read.

    Raises:
        UsageError: E_OUT.
    """
    if out.suffix.casefold() != ".csv" or out.is_dir():
        raise UsageError("E_OUT", f"Expected a table (.csv) to write, got {out}.", "Name it such as features.csv.")
    if taken := replaced((beside(out, ending) for ending in (".csv", *ENDINGS)), inputs):
        raise UsageError("E_OUT", f"{out} would replace {taken}, which is read.", "Give the table another name.")
    writable_folder(out.parent)


def write_tables(
    out: Path, rows: Sequence[Plain], how: Sequence[Configuration], naming: Names = "ibsi", prepared: str = ""
) -> None:
    """Write the table of features, and beside it what explains it; what an earlier table had there goes.

    Args:
        out: the table, `.csv`.
        rows: as `Row.plain` gives them.
        how: by what was measured.
        naming: whose names the columns have.
        prepared: what was done to the images before, for the reporting sheet.

    Raises:
        UsageError: E_ROWS when two rows are of one region, image and configuration.
        CaseError: E_DISK.
    """
    require_apart(rows)
    used = {tag for item in how for tag in item.settings.tags}
    found = versions()
    texts = {
        ".csv": as_csv(rows),
        "_by_case.csv": as_csv(by_case(rows)),
        "_dictionary.csv": as_csv(dictionary(used, naming)),
        "_reporting.md": sheet(how, {name: found[name] for name in SOFTWARE if name in found}, prepared),
    }
    for ending in ENDINGS:  # those of an earlier table would be taken for this one's
        beside(out, ending).unlink(missing_ok=True)
    for ending, text in texts.items():
        save_text(beside(out, ending), text)


def write_robustness(out: Path, found: Iterable[tuple[Plain, Sequence[Values]]], naming: Names = "ibsi") -> None:
    """Write how well each feature agrees between perturbed versions of a region: `_robustness.csv`.

    Args:
        out: the table of features beside which it stands.
        found: rows of that, each with its versions' features; a region without versions does not count.
        naming: whose names the columns have.

    Raises:
        CaseError: E_DISK.
    """
    groups: dict[tuple[str, ...], list[Sequence[Values]]] = {}
    for row, perturbed in found:
        groups.setdefault(alike(row), []).extend([perturbed] if perturbed else [])
    rows = [
        {**dict(zip(ALIKE, kind, strict=True)), "feature": name, **_agreement(made[tag])}
        for kind, regions in groups.items()
        for made in [agreements(regions)]
        for tag, name in columns(made, naming).items()
    ]
    save_text(beside(out, "_robustness.csv"), as_csv(rows))


def _agreement(found: Agreement | None) -> Plain:
    """Empty where there is none: below two regions, or where all values are one."""
    values = ("", "", "", "") if found is None else (found.icc, found.low, found.high, found.regions)
    return dict(zip(("icc_1_1", "low_95", "high_95", "regions"), map(str, values), strict=True))


def write_pages(
    out: Path, found: Sequence[tuple[Plain, bytes | Path | None]], image_units: Mapping[str, str] | None = None
) -> None:
    """Write the pages of regions, as a web page and as a PDF; of more than `SHOWN` those with flags, then the first.

    Args:
        out: the table beside which they stand.
        found: rows under IBSI's names, each with its picture or the picture's file, where there is one.
        image_units: image -> unit of its values.

    Raises:
        CaseError: E_DISK.
    """
    from pipeline.report.regions import regions_page, regions_pdf

    pages = list(_pages(found, image_units or {}))
    left = f", {len(pages)} of them below: those with flags, then the first" if len(pages) < len(found) else ""
    summary = (
        f"{counted(len(found), 'region')}{left}. Percentiles are among the cohort's regions of the same name, image "
        "and configuration. Pictures and histograms show the image and the mask as they came; the values are those of "
        "the image as the configuration prepares it: interpolated, filtered, without what its range leaves out.",
    )
    for ending, made in ((".html", regions_page(pages, summary)), (".pdf", regions_pdf(pages, summary))):
        write_atomic(beside(out, ending), lambda path, made=made: path.write_bytes(made))  # type: ignore[misc]


def beside(out: Path, ending: str) -> Path:
    """A file that stands beside the table: `features.csv` -> `features_dictionary.csv`."""
    return out.with_name(f"{out.stem}{ending}")


def _pages(found: Sequence[tuple[Plain, bytes | Path | None]], image_units: Mapping[str, str]) -> Iterator[RegionPage]:
    from pipeline.report.regions import RegionPage

    groups: dict[tuple[str, ...], list[Plain]] = {}
    for row, _ in found:
        groups.setdefault(alike(row), []).append(row)
    cohort = {kind: values_of(rows) for kind, rows in groups.items()}
    units = {
        image: {tag: unit_in(name.unit, image_units.get(image, "")) for tag, name in names().items()}
        for image in {row["image"] for row, _ in found}
    }
    flagged_first = sorted(range(len(found)), key=lambda index: not flag_sentences(found[index][0]))
    for row, drawn in (found[index] for index in sorted(flagged_first[:SHOWN])):
        png = drawn.read_bytes() if isinstance(drawn, Path) else drawn or b""
        region = "" if row["region"] in ("", row["mask"]) else f", {row['region']}"
        title = f"{row['case_id']}: {row['mask']}{region} in {row['image']}"
        how = f"Configuration {row['configuration']}, settings {row['configuration_sha256']}."
        found_any = any(text for name, text in row.items() if name not in KEYS)
        rows = tuple(main_rows(row, units[row["image"]], cohort[alike(row)])) if found_any else ()
        yield RegionPage(title, how, flag_sentences(row), rows, png)


@dataclass(frozen=True)
class MapPlan:
    """Which maps are made, and where.

    Attributes:
        tags: IBSI's, of the features.
        radius_voxels: of the cube around each voxel.
        folder: for the files.
    """

    tags: tuple[str, ...]
    radius_voxels: int
    folder: Path

    def write(self, image: Nifti, mask: Nifti, settings: Settings, label: int, name: Sequence[str]) -> tuple[Path, ...]:
        """Write a map of each feature of a region as NIfTI, float32, on the grid of the settings; NaN outside.

        Args:
            image: in canonical axes.
            mask: on its grid.
            settings: how the region is prepared.
            label: the region's value in the mask.
            name: what the files are called by: case, image, mask, label, configuration.

        Returns:
            The files.

        Raises:
            UsageError: E_CONFIG for a tag that has no map, or a radius that is not above 0.
            CaseError: as `extract`; E_DISK.
        """
        found = feature_maps(image.values, mask.values, image.affine, settings, self.tags, self.radius_voxels, label)
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {self.folder / f"{in_file_name((*name, tag))}.nii.gz": item for tag, item in found.values.items()}
        for path, values in files.items():
            write_atomic(path, partial(_save, values, found.affine))
        return tuple(files)

    def forget(self, written: Collection[Path]) -> None:
        """Remove the maps of an earlier table: all but those that were written now."""
        for path in self.folder.glob("*.nii.gz"):
            if path not in written:
                path.unlink()


def in_file_name(parts: Sequence[str]) -> str:
    """Texts as a part of a file's name."""
    return "_".join(re.sub(r"[^\w-]+", "-", part) for part in parts)


def _save(values: object, affine: object, path: Path) -> None:
    import nibabel as nib

    made = nib.Nifti1Image(values, affine)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, code=1)
    made.set_qform(affine, code=1)
    nib.save(made, path)
