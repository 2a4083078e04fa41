"""Find the cases of a DICOM tree, and write down what became of every series and file of it."""

from __future__ import annotations

import contextlib
import gc
import shlex
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cases import Instance, Series
from pipeline.columns import escape_cell
from pipeline.console import echo
from pipeline.dicom.headers.scan import Scan, scan
from pipeline.dicom.objects.references import MaskObject, attach_masks
from pipeline.dicom.series.gate import candidates
from pipeline.dicom.series.identity import CONTRADICTION, contradicting_values
from pipeline.dicom.series.select import Choice, Selection, select
from pipeline.dicom.series.stack import stack_of
from pipeline.errors import UsageError
from pipeline.spec.spec import Spec, save_spec
from pipeline.store.files import require_apart, write_atomic
from pipeline.store.plain import write_json
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.store.records import SCAN_SUMMARY, SERIES_TABLE
from pipeline.words import counted

#: The private cache of headers, beside the key.
HEADERS = "headers.jsonl"
#: Endings of what holds files, and is not looked into.
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without Python's search for cycles: it would look at all headers so far, again and again, and free none."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class FindSeries:
    """Find the cases of a DICOM tree, and write `series.csv` and the private tables.

    Args:
        dataset_dir: the DICOM tree; it is never written to.
        output_dir: the run folder.
        spec: the data spec.
        readers: how many processes read headers; 0: one for each core.
    """

    def __init__(self, dataset_dir: str | Path, output_dir: str | Path, spec: Spec, readers: int = 0) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.output_dir = Path(output_dir)
        self.spec = spec
        self.readers = readers
        #: After a call: which case each file belongs to, whether or not it plays a role.
        self.owners: dict[Path, str] = {}
        #: After a call: how many files and folders could not be read.
        self.unreadable = 0

    @collector_paused()
    def __call__(self) -> list[dict[str, Any]]:
        """The cases, each with its roles' `Series`.

        Raises:
            UsageError: E_EMPTY, E_NO_DICOM, E_UNREADABLE when the tree cannot be used, E_NO_CASES when no series fits
                any role, E_OUT when the run folder lies in the tree or a link leads to it, E_KEY.
        """
        require_apart(self.output_dir, self.dataset_dir)
        names = Pseudonyms(self.output_dir)
        names.hold(self.output_dir)
        cache = names.place(HEADERS)
        found = scan(self.dataset_dir, self._rule_tags(), self.output_dir, cache, self.readers)
        self.unreadable = len(found.unreadable)
        series = candidates(found.series)
        self.owners = self._owners((*found.series, *series), names)
        selection = select(series, self.spec, lambda item: names.of("case", *self._owner(item)))
        masked = attach_masks(series, selection, self.spec)
        series, selection = list(masked.series), masked.selection
        self._keep_regions(masked.objects, names)
        self._write_tables(series, selection.choices, found, names)
        self._keep_contradictions(series, selection, names)
        if not selection.cases:
            reason = "The tree holds DICOM files, but no series of images."
            if series:
                fits = "The one series fits no" if len(series) == 1 else f"None of the {len(series)} series fits a"
                reason = f"{fits} role of the data spec {self.spec.name}."
            see = f"`tandem series {shlex.quote(str(self.dataset_dir))}` describes what there is and drafts a spec"
            raise UsageError("E_NO_CASES", reason, f"See {self.output_dir / SERIES_TABLE} for the reasons; {see}.")
        return [case.as_dict() for case in selection.cases]

    def _rule_tags(self) -> set[str]:
        roles = self.spec.roles.values()
        return {rule.tag for role in roles for rule in (*role.all, *role.any, *role.none)}

    def _owner(self, series: Series) -> tuple[str, ...]:
        owners = {"patient": (), "study": (series.study_uid,), "series": _series_id(series)}
        return (series.patient_id, *owners[self.spec.case])

    def _owners(self, series: Sequence[Series], names: Pseudonyms) -> dict[Path, str]:
        owned: dict[Path, str] = {}
        for item in series:  # the parts of a series come behind the whole
            files = [instance.path for instance in (*item.instances, *item.rejected)]
            owned.update(dict.fromkeys(files, names.of("case", *self._owner(item))))
        return owned

    def _keep_regions(self, objects: Sequence[MaskObject], names: Pseudonyms) -> None:
        """Write the names of all regions into a private table: who writes a spec's `labels` needs them."""
        if self.spec.masks:
            owners = [(names.of("series", *_series_id(item.series)), item) for item in objects]
            rows = [(series, item.series.modality, region) for series, item in owners for region in item.names]
            names.keep("rois.csv", ("series", "modality", "region"), rows)

    def _keep_contradictions(self, series: Sequence[Series], selection: Selection, names: Pseudonyms) -> None:
        """Write the values by which headers contradict each other into a private table, where there are any."""
        unfit = {case.case_id for case in selection.cases if case.fault and case.fault.code == CONTRADICTION}
        groups = [
            [item for item, choice in zip(series, selection.choices, strict=True) if choice.case_id == case]
            for case in sorted(unfit)
        ]
        groups += [[item] for item in series if item.fault and item.fault.code == CONTRADICTION]
        rows = [
            (names.of("series", *_series_id(group[index])), *named)
            for group in groups
            for index, *named in contradicting_values(group)
        ]
        if rows:
            where = names.keep("contradictions.csv", ("series", "element", "value"), dict.fromkeys(rows))
            echo(f"Headers contradict each other in who, where or when: see {where}", error=True)

    def _write_tables(
        self, series: Sequence[Series], choices: Sequence[Choice], found: Scan, names: Pseudonyms
    ) -> None:
        ids = [names.of("series", *_series_id(item)) for item in series]
        rows = [_row(*entry) for entry in zip(ids, series, choices, strict=True)]
        table = pd.DataFrame(rows).map(escape_cell)
        write_atomic(self.output_dir / SERIES_TABLE, lambda path: table.to_csv(path, index=False))
        private = [_private_row(*entry) for entry in zip(ids, series, choices, strict=True)]
        names.keep(SERIES_TABLE, _PRIVATE_COLUMNS, private)
        save_spec(self.spec, self.output_dir)
        lost = [*found.rejected, *(instance for item in series for instance in item.rejected)]
        apart = {item.path: item for item in (*found.others, *lost, *found.unreadable)}
        where = names.keep("files.csv", ("path", "code", "reason"), map(_file_row, apart.values()))
        counts = _counts(found, apart.keys())
        write_json(self.output_dir / SCAN_SUMMARY, counts)
        if archives := sum(item.path.suffix.lower() in ARCHIVES for item in found.others):
            echo(f"{counted(archives, 'archive')} not opened: unpack what holds images, and run again.", error=True)
        if found.unreadable or lost:
            told = [
                (len(found.unreadable), "file or folder", "could not be read"),
                (counts["files_rejected"], "DICOM file", "cannot be used"),
            ]
            said = " and ".join(f"{counted(number, noun)} {what}" for number, noun, what in told if number)
            echo(f"{said}: see {where} for each one's reason.", error=True)


def _series_id(series: Series) -> tuple[str, ...]:
    """What tells a series, or a part of one, from all others."""
    return (series.study_uid, series.series_uid, *((series.part,) if series.part else ()))


def _counts(found: Scan, apart: Set[Path]) -> dict[str, int]:
    """Every entry of the tree under one word; those of no series are among the rejected ones, too."""
    accepted = {path for item in found.series for path in item.files} - apart
    return {
        "series": len(found.series),
        "files_accepted": len(accepted),
        "files_rejected": len(apart) - len(found.unreadable) - len(found.others),
        "files_unreadable": len(found.unreadable),
        "files_not_dicom": len(found.others),
        "files_of_no_series": len(found.rejected),
    }


_PRIVATE_COLUMNS = ("series", "case_id", "patient_id", "study_uid", "series_uid", "description", "folder")


def _row(series_id: str, series: Series, choice: Choice) -> dict[str, Any]:
    """A series in `series.csv`: no identifier, no free text of the hospital's."""
    first = (series.instances or series.rejected)[0]
    fault = "not an image" if series.fault and series.fault.code == "E_NOT_IMAGE" else "set aside"
    verdict = "chosen" if choice.role else fault if series.fault else "not chosen"
    spacing = "" if first.spacing_mm is None else f"{first.spacing_mm[0]:g} x {first.spacing_mm[1]:g}"
    return {
        "series": series_id,
        "part": series.part,
        "case_id": choice.case_id,
        "modality": series.modality,
        "instances": len(series.instances),
        "rejected_files": len(series.rejected),
        "rows": first.rows,
        "columns": first.columns,
        "pixel_spacing_mm": spacing,
        "slice_step_mm": _step(series),
        "role": choice.role,
        "verdict": verdict,
        "code": series.fault.code if series.fault else "",
        "reason": " ".join(filter(None, (series.fault.message if series.fault else "", choice.reason))),
        "notes": "; ".join(series.notes),
    }


def _step(series: Series) -> str:
    if series.fault or len(series.instances) < 2:
        return ""
    return f"{stack_of(series.instances).step_mm:.4g}"


def _private_row(series_id: str, series: Series, choice: Choice) -> tuple[str, ...]:
    first = (series.instances or series.rejected)[0]
    description = str(escape_cell(first.tags.get("SeriesDescription", "")))
    identifiers = (series.patient_id, series.study_uid, series.series_uid)
    return (series_id, choice.case_id, *identifiers, description, str(first.path.parent))


def _file_row(instance: Instance) -> tuple[str, str, str]:
    fault = instance.fault
    return (str(instance.path), fault.code if fault else "", fault.message if fault else "")
