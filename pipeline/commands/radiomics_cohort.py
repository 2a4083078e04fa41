"""Where the stage `radiomics` meets the report: its regions drawn, and the tables and pages of a run's cohort."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from pipeline.cases import Document, Record
from pipeline.commands.radiomics_files import write_pages, write_robustness, write_tables
from pipeline.radiomics.configurations import of_spec
from pipeline.radiomics.robustness import Values
from pipeline.radiomics.stage import TABLE, VERSIONS, measurables
from pipeline.radiomics.table import KEYS, Plain, alike, read_csv
from pipeline.report.regions import draw_region
from pipeline.spec.spec import Spec
from pipeline.store import records

OUT = "radiomics.csv"


class DrawRegionsd(Transform):
    """Draw every region of a case that was measured: `region_<image>-<mask>-<label>`.

    Args:
        spec: the data spec, with a section `radiomics`.
        carried: mask and role -> key of the mask on the grid of that role's image, for masks drawn on another.
    """

    def __init__(self, spec: Spec, carried: Mapping[tuple[str, str], str]) -> None:
        self.keys = {(item.image, item.mask): item.key for item in measurables(spec, carried)}
        self.displays = spec.displays

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return {"region_pictures": "documents?"}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw.

        Args:
            data: images and label images (1, I, J, K), and the table `radiomics`.
        """
        found = {}
        for row in data[TABLE].to_dict("records"):
            name, key = picture_key(row), self.keys[row["image"], row["mask"]]
            if name not in found and key in data:
                display = self.displays[row["image"]]
                image, label = data[row["image"]], data[key]
                found[name] = draw_region(image, label, int(row["label"]), display.unit, display.window)
        drawn = {name: Document(".png", png) for name, png in found.items() if png}
        return {**data, "region_pictures": drawn} if drawn else dict(data)


class WriteCohort:
    """Write the tables of a run's features, and the pages of its regions, into the run folder.

    Args:
        spec: the data spec, with a section `radiomics`.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __call__(self, output_dir: Path) -> None:
        """Write `radiomics.csv`, what explains it, `radiomics.html` and `radiomics.pdf`.

        Raises:
            UsageError: E_ROWS.
            CaseError: E_DISK.
        """
        made = [_paths(case, output_dir) for case in records.of_run(output_dir).values()]
        found = [pair for paths in made for pair in _of_case(paths)]
        how = {item.name: item for items in of_spec(self.spec.radiomics).values() for item in items}
        moved = "by Tandem: verdicts in cases.csv" if self.spec.moving else "images as they came, RAS+"
        write_tables(output_dir / OUT, [row for row, _ in found], list(how.values()), prepared=moved)
        if self.spec.radiomics.robustness:
            write_robustness(output_dir / OUT, _with_versions(made))
        write_pages(output_dir / OUT, found, {role: display.unit for role, display in self.spec.displays.items()})


def picture_key(row: Mapping[Any, Any]) -> str:
    """The key of a region's picture; names have no hyphen, so that no two regions share one."""
    return f"region_{row['image']}-{row['mask']}-{row['label']}"


def _with_versions(made: Iterable[Mapping[str, Path]]) -> Iterator[tuple[Plain, list[Values]]]:
    """A row of each region that was perturbed, with its versions' features."""
    for path in (paths.get(VERSIONS) for paths in made):
        groups: dict[tuple[str, ...], list[Plain]] = {}
        for row in read_csv(path) if path else ():
            groups.setdefault(alike(row), []).append(row)
        for rows in groups.values():
            yield rows[0], [{key: float(text or "nan") for key, text in row.items() if key not in KEYS} for row in rows]


def _paths(found: list[Record], output_dir: Path) -> dict[str, Path]:
    """Where what the stages of a case have made lies."""
    made = [item for record in found if record.status == "done" for item in record.artifacts]
    return {item.key: output_dir / item.path for item in made}


def _of_case(paths: Mapping[str, Path]) -> Iterator[tuple[Plain, Path | None]]:
    """The rows of a case, each with its picture's file; none where the stage was not done."""
    for row in read_csv(paths[TABLE]) if TABLE in paths else ():
        yield row, paths.get(picture_key(row))
