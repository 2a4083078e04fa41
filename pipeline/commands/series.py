"""`tandem series`: what a tree of DICOM files holds, for the person who writes a data spec; and a draft of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.table import Table

from pipeline.cases import Fault, Series
from pipeline.console import echo, print_table, shown
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.series.gate import candidates
from pipeline.dicom.series.radiograph import is_radiograph
from pipeline.dicom.series.select import plane_of, select
from pipeline.dicom.series.stack import number, stack_of
from pipeline.errors import UsageError
from pipeline.spec.roles import SUV_BODY_WEIGHT
from pipeline.spec.spec import Spec, load_spec
from pipeline.store.files import write_text
from pipeline.words import counted

#: Read beside what ingest reads.
TAGS = ("SeriesNumber", "StudyDate", "RepetitionTime")
#: What the roles of a draft are called and measured in, where it is not the modality itself and arbitrary units.
ROLES, UNITS = {"PT": "pet"}, {"CT": "HU", "PT": SUV_BODY_WEIGHT}


@dataclass(frozen=True)
class SeriesRow:
    """One volume or radiograph of a tree. Private: descriptions and dates are the hospital's own.

    Attributes:
        patient: counted from 1.
        number: SeriesNumber (0020,0011).
        description: SeriesDescription (0008,103E), with the part of a series that had to be split.
        images: that were accepted.
        matrix: rows and columns.
        spacing_mm: between rows, between columns, between slices where they are even; empty where it is not known.
        plane: `axial`, `coronal`, `sagittal` or `unknown`.
        details: what tells it from others: repetition and echo time, or the kernel.
        date: StudyDate (0008,0020).
        fault: code and sentence where the series cannot be used.
        series: as it was scanned.
    """

    patient: int
    number: str
    modality: str
    description: str
    images: int
    matrix: tuple[int, int]
    spacing_mm: tuple[float, ...]
    plane: str
    details: str
    date: str
    fault: str
    series: Series = field(repr=False)


def series(root: str | Path, progress: bool = False) -> tuple[SeriesRow, ...]:
    """Look at the headers of a tree of DICOM files; nothing is written: `tandem series`.

    Args:
        root: a folder of DICOM files, at any depth.
        progress: say on stderr how many files could not be read.

    Returns:
        Every series, or part of one that holds several volumes, by patient, date and number.

    Raises:
        UsageError: E_EMPTY, E_NO_DICOM.
    """
    found = scan(Path(root), TAGS)
    if lost := len(found.unreadable) + len(found.rejected):
        with shown(progress):
            echo(f"{counted(lost, 'file or folder')} could not be read, or belong to no series.", error=True)
    items = sorted(candidates(found.series), key=_place)
    patients = {name: index for index, name in enumerate(dict.fromkeys(item.patient_id for item in items), start=1)}
    return tuple(_row(item, patients[item.patient_id]) for item in items)


def show(found: Sequence[SeriesRow]) -> None:
    """Print one row a series on stdout, and on stderr that this is private."""
    names = ("patient", "date", "no.", "modality", "description", "images", "matrix", "spacing (mm)", "plane")
    table = Table(*names, "TR, TE or kernel", "fault", box=None, header_style="bold")
    for row in found:
        size, spacing = (" x ".join(f"{value:.4g}" for value in item) for item in (row.matrix, row.spacing_mm))
        cells = (str(row.patient), row.date, row.number, row.modality, row.description, str(row.images), size, spacing)
        table.add_row(*map(_plain, (*cells, row.plane, row.details, row.fault)))
    print_table(table)
    echo("Private: descriptions and dates are the hospital's, and may name a patient.", error=True)


def draft_spec(found: Sequence[SeriesRow], path: str | Path) -> Spec:
    """Write a data spec that chooses a series of each modality: in each patient the volume with the most images.

    Descriptions that more patients have come first. What one case is, a patient or a study, is what gives fewer faults.

    Args:
        found: what `series` has found.
        path: the file to write, `<name>.yaml`; there must be none.

    Returns:
        The spec, as it was read back.

    Raises:
        UsageError: E_OUT when there is such a file or its name cannot name a spec; E_NO_CASES without any volume.
    """
    path = Path(path)
    if path.exists():
        raise UsageError("E_OUT", f"Expected a new file to write, but {path} exists.", "Give another.")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*\.yaml", path.name) or not path.parent.is_dir():
        remedy = "Give a name such as my_study.yaml (lower-case letters, digits, _ and -), in a folder that exists."
        raise UsageError("E_OUT", f"Expected a .yaml file to write, got {path}.", remedy)
    usable = [row for row in found if _is_volume(row)]
    if not usable:
        raise UsageError("E_NO_CASES", f"Expected a volume to draft a spec of, got none in {len(found)} series.")
    drafts = ["\n".join(_lines(path.stem, case, usable)) + "\n" for case in ("patient", "study")]
    text = min(drafts, key=lambda text: len(faults(found, Spec.model_validate(yaml.safe_load(text)))))
    write_text(path, text)
    return load_spec(path)


def show_draft(found: Sequence[SeriesRow], spec: Spec, path: Path) -> int:
    """Say what a drafted spec chooses; the exit code: 1 where it does not choose one series for each role of a case."""
    unfit = faults(found, spec)
    for patient, fault in unfit:
        echo(f"Patient {patient}: {fault.code}: {fault.message} {fault.remedy}", error=True)
    echo(f"Draft: {path}, with the roles {', '.join(spec.roles)}. Look at it, and correct it.")
    if unfit:
        echo(f"Exit code 1: in {counted(len(unfit), 'case')} it does not choose one series for each role.", error=True)
    return int(bool(unfit))


def faults(found: Sequence[SeriesRow], spec: Spec) -> list[tuple[int, Fault]]:
    """The cases in which a spec does not choose one series for each role: the patient, counted from 1, and why."""
    names: dict[str, Callable[[Series], str]] = {
        "patient": lambda item: item.patient_id,
        "study": lambda item: item.study_uid,
        "series": lambda item: item.series_uid,
    }
    owners = {names[spec.case](row.series): row.patient for row in found}
    cases = select([row.series for row in found], spec, names[spec.case]).cases
    return [(owners[case.case_id], case.fault) for case in cases if case.fault]


def _lines(name: str, case: str, usable: Sequence[SeriesRow]) -> Iterator[str]:
    """The lines of a spec: a role for each modality, CT first."""
    modalities = sorted({row.modality for row in usable}, key=lambda modality: (modality != "CT", modality))
    roles = {ROLES.get(modality, re.sub(r"\W", "_", modality.lower())): modality for modality in modalities}
    yield "# Drafted from a tree of DICOM files: look at it, and correct it. It holds descriptions of the hospital's."
    yield "# Every key is explained in docs/reference/data-specs.md."
    yield f"name: {name}"
    yield f"description: Drafted from {len(usable)} volumes of {len({row.patient for row in usable})} patients."
    yield f"case: {case}   # what one case is: patient, study or series"
    yield "\nroles:"
    for role, modality in roles.items():
        yield from _role(role, [row for row in usable if row.modality == modality])
    if len(roles) > 1:
        fixed, *moving = roles
        yield f"\nregister:\n  fixed: {fixed}   # stays in place, gives the grid"
        yield f"  moving: [{', '.join(moving)}]   # moved onto it"


def _role(role: str, rows: Sequence[SeriesRow]) -> Iterator[str]:
    """The lines of one role: what its series are called, and the other descriptions that were not taken."""
    chosen = _descriptions(rows)
    planes = {row.plane for row in rows if _described(row) in chosen}
    yield f"  {role}:\n    modality: {rows[0].modality}"
    if rows[0].modality in UNITS:
        yield f"    unit: {UNITS[rows[0].modality]}"
    if len(planes) == 1 and "unknown" not in planes:
        yield f"    orientation: {planes.pop()}"
    if "" in chosen:
        yield "    # a series has no SeriesDescription: any of this modality is taken"
    else:
        yield "    any:   # what the series is called"
        yield from (f"      - {_rule(name)}" for name in chosen)
    yield from (f"      # - {_rule(name)}" for name in sorted({*map(_described, rows)} - {*chosen, ""}))
    yield "    none:\n      - {tag: ImageType, matches: LOCALIZER}"
    yield "    prefer: [most_instances, first_part]   # where several are left"


def _descriptions(rows: Sequence[SeriesRow]) -> list[str]:
    """Few descriptions of which every patient has one; those of more patients, then of more images, first."""
    left, chosen = {row.patient for row in rows}, []
    while left:
        called = {name: [row for row in rows if _described(row) == name] for name in map(_described, rows)}
        counts = {
            name: (len(left & {row.patient for row in of_it}), max(row.images for row in of_it))
            for name, of_it in called.items()
        }
        chosen.append(max(counts, key=counts.__getitem__))
        left -= {row.patient for row in called[chosen[-1]]}
    return chosen


def _rule(description: str) -> str:
    pattern = re.sub(r"([.^$*+?{}\[\]|()\\])", r"\\\1", description)
    quoted = yaml.safe_dump(f"^{pattern}$", default_style="'", width=10**6, allow_unicode=True).strip()
    return f"{{tag: SeriesDescription, matches: {quoted}}}"


def _is_volume(row: SeriesRow) -> bool:
    scout = "LOCALIZER" in row.series.instances[0].tags["ImageType"] if row.images else False
    return bool(row.modality) and not row.fault and row.images > 1 and not scout and not is_radiograph(row.series)


def _described(row: SeriesRow) -> str:
    return row.series.instances[0].tags["SeriesDescription"]


def _place(item: Series) -> tuple[str, str, str, float, list[int]]:
    first, part = (item.instances or item.rejected)[0], [int(digits) for digits in re.findall(r"\d+", item.part)]
    return item.patient_id, first.tags.get("StudyDate", ""), item.study_uid, number(first, "SeriesNumber"), part


def _row(item: Series, patient: int) -> SeriesRow:
    first = (item.instances or item.rejected)[0]
    tags = first.tags
    day, kernel = (tags.get(key, "") for key in ("StudyDate", "ConvolutionKernel"))
    spacing: tuple[float, ...] = first.spacing_mm or ()
    if spacing and not item.fault and len(item.instances) > 1:
        spacing = (*spacing, stack_of(item.instances).step_mm)
    times = {name: number(first, key) for name, key in (("TR", "RepetitionTime"), ("TE", "EchoTime")) if tags.get(key)}
    return SeriesRow(
        patient=patient,
        number=tags.get("SeriesNumber", ""),
        modality=item.modality,
        description=" - ".join(filter(None, (tags.get("SeriesDescription", ""), item.part))),
        images=len(item.instances),
        matrix=(first.rows, first.columns),
        spacing_mm=spacing,
        plane=plane_of(first),
        details=", ".join(f"{name} {time_ms:.4g} ms" for name, time_ms in times.items()) or kernel,
        date=f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 else day,
        fault=f"{item.fault.code}: {item.fault.message}" if item.fault else "",
        series=item,
    )


def _plain(text: str) -> str:
    """A text without what a terminal, or rich's markup, would take for a command."""
    return "".join(letter for letter in text if letter.isprintable()).replace("[", r"\[")
