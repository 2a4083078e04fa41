"""Measure regions of images without a cohort's run: `tandem radiomics`. Nothing heavy: no torch, no MONAI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cases import Fault
from pipeline.columns import read_rows
from pipeline.commands.radiomics_files import (
    MapPlan,
    beside,
    in_file_name,
    require_table,
    write_pages,
    write_robustness,
    write_tables,
)
from pipeline.console import echo, shown, track
from pipeline.endings import volume_stem
from pipeline.errors import CaseError, PipelineError, UsageError, pipeline_cause, root_words
from pipeline.geometry import off_grid
from pipeline.radiomics.configurations import Configuration, read_configurations, read_perturbations
from pipeline.radiomics.features import extract
from pipeline.radiomics.maps import require_maps
from pipeline.radiomics.perturbation import Perturbations
from pipeline.radiomics.table import Names, Row, as_naming, columns, prefixes, with_versions
from pipeline.run.plan import require_device
from pipeline.spec.explain import did_you_mean
from pipeline.store.files import require_given

if TYPE_CHECKING:
    from pipeline.nifti.volume import Nifti

#: What one image may take, in seconds, before it counts as failed.
TIMEOUT_S = 3600.0
#: So many regions each process may be ahead of one that takes long: the next are often small.
AHEAD = 16
_INPUTS = "Give -i IMAGE and -m MASK in pairs, one mask for all images or one image for all masks; or --cases TABLE."
_APART = "Give each case and image a name of its own: --cases TABLE with image_name, mask_name."


@dataclass(frozen=True)
class Pair:
    """One image with one mask.

    Attributes:
        case_id: whose.
        image: its file.
        mask: its file.
        image_name: as the table calls it.
        mask_name: likewise.
        labels: which of the mask's; none: all that it has.
        config: names of configurations; none: all that the command has.
    """

    case_id: str
    image: Path
    mask: Path
    image_name: str
    mask_name: str
    labels: tuple[int, ...] = ()
    config: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What one process does at once.

    Attributes:
        pair: of what.
        configurations: how it is measured.
        perturbations: how regions are perturbed, too; None: not at all.
        drawn: whether the regions are drawn.
        maps: of which features; None: of none.
        device: torch's name of where filters are computed.
    """

    pair: Pair
    configurations: tuple[Configuration, ...]
    perturbations: Perturbations | None = None
    drawn: bool = False
    maps: MapPlan | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Measured:
    """What became of a task: its rows, of each label a picture where one was asked for, and the maps' files."""

    rows: tuple[Row, ...]
    pictures: dict[int, bytes]
    maps: tuple[Path, ...] = ()


def radiomics(  # noqa: PLR0913 - each is an option of the command
    images: Sequence[str | Path] = (),
    masks: Sequence[str | Path] = (),
    out: str | Path = "features.csv",
    config: Sequence[str | Path] = (),
    cases: str | Path | None = None,
    labels: Sequence[int] = (),
    case: str = "",
    names: str = "ibsi",
    jobs: int = 1,
    page: bool = False,
    robustness: str | Mapping[str, Any] = "",
    maps: Sequence[str] = (),
    map_radius: int | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> list[Row]:
    """Measure regions: `tandem radiomics`. A bad case never costs the others: its row says what was wrong.

    Beside the table stand, under its name, `_by_case.csv` (one row a case), `_dictionary.csv`, `_reporting.md`, with
    `robustness` `_robustness.csv`, and with `page` the regions as pictures, `.html` and `.pdf`.

    Args:
        images: NIfTI files.
        masks: NIfTI files of labels: one for each image, one for all, or several for one image.
        out: the table, `.csv`.
        config: presets, or YAML files of settings.
        cases: a CSV with `case_id`, `image`, `mask`, and where wanted `image_name`, `mask_name`, `label`,
            `config` (names of configurations, separated by spaces).
        labels: which of the masks'; all that they have when left out.
        case: a name for the case that all images are of; each image is a case of its own when left out.
        names: whose names the columns have: `ibsi` or `pyradiomics`.
        jobs: how many processes work at once.
        page: draw the regions.
        robustness: measure perturbed versions of each region, too, and write how well features agree between them:
            `default`, a YAML file, or keys and values of `pipeline.radiomics.perturbation.Perturbations`.
        maps: tags of features of which a map of each region is written, below `_maps/`.
        map_radius: of the cube around each voxel of a map, voxels; 1 when left out.
        device: where filters are computed: `cpu`, `cuda` or `cuda:N`.
        progress: print a line, and show a bar at a terminal.

    Returns:
        The rows, in the order of the input.

    Raises:
        UsageError: E_CONFIG, E_INPUT, E_ROWS, E_TABLE, E_OPTION, E_OUT.
        CaseError: E_DISK.
    """
    naming = as_naming(names)
    if not config:
        raise UsageError("E_CONFIG", "Expected a configuration, got none.", "Give --config: a preset, or a YAML file.")
    if wrong := [label for label in labels if label < 1]:
        raise UsageError("E_OPTION", f"Expected labels from 1, got {wrong[0]}: 0 is what lies outside of all regions.")
    how = tuple(item for source in config for item in read_configurations(str(source)))
    pairs = _of_files(images, masks, case) if cases is None else _of_table(Path(cases))
    _require_apart(pairs, how)
    wanted = [replace(pair, labels=pair.labels or tuple(dict.fromkeys(labels))) for pair in pairs]
    changes = read_perturbations(robustness)
    plan = _plan(maps, map_radius, Path(out), pairs)
    require_device(device)
    named = [cases, *config, *([robustness] if isinstance(robustness, str) else ())]
    read = [Path(name) for name in named if name]
    require_table(Path(out), [*read, *(path for pair in pairs for path in (pair.image, pair.mask))])
    tasks = [Task(pair, _chosen(pair, how), changes, page, plan, device) for pair in wanted]
    with shown(progress):
        found = list(track(_measured(tasks, jobs), len(tasks), "radiomics"))
        rows = [row for item in found for row in item.rows]
        write_tables(Path(out), [row.plain(naming) for row in rows], how, naming)
        if plan:
            plan.forget({path for item in found for path in item.maps})
        if changes:
            write_robustness(Path(out), [(row.plain(), row.versions) for row in rows], naming)
        if page:
            drawn = [(row.plain(), item.pictures.get(row.label or 0, b"")) for item in found for row in item.rows]
            write_pages(Path(out), drawn)
    return rows


def show(rows: Sequence[Row], out: Path, naming: Names = "ibsi") -> int:
    """Say what was measured, and what was not; the exit code: 1 when a case failed."""
    failed = [row for row in rows if row.error]
    for row in failed:
        echo(f"{row.case_id}, {row.image}, {row.mask}: failed: {row.error}", error=True)
    flagged = Counter(flag for row in rows for flag in row.flags)
    said = "".join(f"; {count} {flag}" for flag, count in sorted(flagged.items()))
    echo(f"radiomics: {len(rows) - len(failed)} rows, {len(failed)} failed{said}")
    tags = {tag for row in rows for tag in row.values}
    if unnamed := len(tags) - len(columns(tags, naming)):
        echo(f"{unnamed} of {len(tags)} features have no name of {naming} and are left out: the dictionary lists them.")
    echo(f"Table: {out}")
    return int(bool(failed))


def measure(task: Task) -> Measured:
    """Measure the labels of a mask; what cannot be measured has a row that says why."""
    try:
        image, mask = _read(task.pair.image), _read(task.pair.mask)
        if wrong := off_grid(image.values.shape, image.affine, mask.values.shape, mask.affine):
            raise CaseError("E_GRID", f"Expected the mask on the grid of its image, got {wrong}.")
        labels = task.pair.labels or _labels(mask) or (None,)
        empty = (_row(task.pair, label, how) for label, how in product(labels, task.configurations))
        filled = [_filled(row, image, mask, task) for row in empty]
        drawn = [label for label in labels if label is not None] if task.drawn else []
        maps = tuple(path for _, files in filled for path in files)
        return Measured(tuple(row for row, _ in filled), {label: _drawn(image, mask, label) for label in drawn}, maps)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with one case must not stop the cohort
        known = pipeline_cause(error) or CaseError("E_INTERNAL", f"{root_words(error)}.")
        return _failed(task, known.code, known.message)


def _measured(tasks: Sequence[Task], jobs: int) -> Iterator[Measured]:
    """Measure in this process what is one task; several in children, so that one that dies costs itself alone."""
    if len(tasks) == 1:
        yield measure(tasks[0])
        return
    from pipeline.child import Children

    with Children(measure, workers=min(jobs, len(tasks)), timeout_s=TIMEOUT_S, ahead=AHEAD) as children:
        for task, found in zip(tasks, children.map(tasks), strict=True):
            if isinstance(found, Measured):
                yield found
            elif isinstance(found, Fault):
                yield _failed(task, found.code, found.message)
            else:
                yield _failed(task, "E_INTERNAL", f"{root_words(found)}.")


def _failed(task: Task, code: str, message: str) -> Measured:
    """A row without values for each configuration and label that were asked for."""
    found = product(task.pair.labels or (None,), task.configurations)
    said = f"{code}: {message}"
    return Measured(tuple(replace(_row(task.pair, label, how), error=said) for label, how in found), {})


def _row(pair: Pair, label: int | None, how: Configuration) -> Row:
    """A row without values."""
    nothing: dict[str, float | None] = dict.fromkeys(how.settings.tags)
    name = "" if label is None else str(label)
    return Row(pair.case_id, pair.image_name, pair.mask_name, label, name, how, nothing)


def _plan(maps: Sequence[str], radius: int | None, out: Path, pairs: Sequence[Pair]) -> MapPlan | None:
    """Which maps are made.

    Raises:
        UsageError: E_CONFIG, E_OPTION; E_ROWS when two would have one file.
    """
    if radius is not None and not maps:
        raise UsageError("E_OPTION", "Expected --map beside --map-radius, got none.", "Name a feature: --map TAG.")
    require_maps(maps, 1 if radius is None else radius)
    files = Counter(in_file_name(item) for item in {(pair.case_id, pair.image_name, pair.mask_name) for pair in pairs})
    name, most = files.most_common(1)[0]
    if maps and most > 1:
        what = f"Expected cases and images whose names differ in letters or digits, got {most} for {name}."
        raise UsageError("E_ROWS", what, _APART)
    return MapPlan(tuple(maps), radius or 1, beside(out, "_maps")) if maps else None


def _filled(row: Row, image: Nifti, mask: Nifti, task: Task) -> tuple[Row, tuple[Path, ...]]:
    """A row with its values, and the maps that were written of its region."""
    label, settings = 1 if row.label is None else row.label, row.configuration.settings
    volumes = (image.values, mask.values, image.affine)
    found = extract(*volumes, settings, label, device=task.device)
    filled, files = replace(row, values=found.values, flags=found.flags), tuple[Path, ...]()
    if task.maps and "empty" not in found.flags:
        name = (row.case_id, row.image, row.mask, str(label), row.configuration.name)
        files = task.maps.write(image, mask, settings, label, name)
    return with_versions(filled, *volumes, task.perturbations, label, task.device), files


def _labels(mask: Nifti) -> tuple[int, ...]:
    """The labels that a mask has.

    Raises:
        CaseError: E_LABEL for values that are not whole numbers.
    """
    import numpy as np

    present = np.unique(mask.values)
    if (present != np.rint(present)).any() or present.min() < 0:
        raise CaseError("E_LABEL", "Expected whole numbers from 0 in the mask, got others.")
    return tuple(map(int, present[present > 0]))


def _read(path: Path) -> Nifti:
    """A volume with its axes nearest to right, front and head.

    Raises:
        UsageError: E_INPUT, E_UNREADABLE.
        CaseError: E_NIFTI.
    """
    from pipeline.nifti.volume import canonical, read_nifti

    require_given(path, "a NIfTI file")
    try:
        return canonical(read_nifti(path))
    except PipelineError as error:
        raise CaseError(error.code, f"{path.name}: {error.message}", error.remedy) from error


def _drawn(image: Nifti, mask: Nifti, label: int) -> bytes:
    from pipeline.report.regions import draw_region
    from pipeline.volumes import volume

    return draw_region(volume(image.values, image.affine), volume(mask.values, image.affine), label)


def _of_files(images: Sequence[str | Path], masks: Sequence[str | Path], case: str) -> list[Pair]:
    """What files that a command names stand for.

    Raises:
        UsageError: E_INPUT when they do not pair.
    """
    many = max(len(images), len(masks))
    if not images or not masks or {len(images), len(masks)} - {1, many}:
        what = f"Expected images and masks in pairs, got {len(images)} and {len(masks)}."
        raise UsageError("E_INPUT", what, _INPUTS)
    pictures, drawn = (list(map(Path, group)) * (many // len(group)) for group in (images, masks))
    both = zip(pictures, drawn, strict=True)
    return [
        Pair(case or volume_stem(image), image, mask, volume_stem(image), volume_stem(mask)) for image, mask in both
    ]


def _of_table(path: Path) -> list[Pair]:
    """What a table of cases stands for; its files are relative to its folder.

    Raises:
        UsageError: E_TABLE.
    """
    found, needed = [], ("case_id", "image", "mask")
    for number, row in enumerate(read_rows(path, needed, ("image_name", "mask_name", "label", "config")), start=2):
        if absent := [name for name in needed if not row[name]]:
            raise UsageError("E_TABLE", f"Expected {absent[0]} in row {number} of {path.name}, got an empty cell.")
        image, mask = (path.parent / row[key] for key in ("image", "mask"))
        label = row.get("label", "").removesuffix(".0")  # as pandas writes a column that has gaps
        if label and not (label.isdigit() and int(label)):
            raise UsageError("E_TABLE", f"Expected a whole number from 1 as label of {row['case_id']}, got {label}.")
        config = tuple(row.get("config", "").split())
        called = row.get("image_name") or volume_stem(image), row.get("mask_name") or volume_stem(mask)
        found.append(Pair(row["case_id"], image, mask, *called, (int(label),) if label else (), config))
    return found


def _chosen(pair: Pair, how: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """By what a pair is measured.

    Raises:
        UsageError: E_CONFIG for a name that no configuration has.
    """
    known = {item.name: item for item in how}
    for name in pair.config:
        if name not in known:
            near = did_you_mean(name, known) or "."
            what = f"Expected one of {', '.join(known)} as config of {pair.case_id}, got {name}{near}"
            raise UsageError("E_CONFIG", what, "Give it with --config, too.")
    return tuple(known[name] for name in pair.config or known)


def _require_apart(pairs: Sequence[Pair], how: Sequence[Configuration]) -> None:
    """Refuse the same twice.

    Raises:
        UsageError: E_ROWS for a case, E_CONFIG for a configuration's name.
    """
    cases = Counter((pair.case_id, pair.image_name, pair.mask_name, pair.labels) for pair in pairs)
    (case, image, mask, _), most = cases.most_common(1)[0]
    if most > 1:
        what = f"Expected each case once, got {case} ({image}, {mask}) {most} times."
        raise UsageError("E_ROWS", what, _APART)
    prefixes({(pair.image_name, pair.mask_name, "", item.name) for pair, item in product(pairs, how)})
    name, most = Counter(item.name for item in how).most_common(1)[0]
    if most > 1:
        raise UsageError("E_CONFIG", f"Expected a name of its own for each configuration, got {name} twice.")
