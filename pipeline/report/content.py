"""What a report says about one case, ready to be laid out: texts, tables and pictures. No layout here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline import __version__
from pipeline.cases import Record
from pipeline.report import tables
from pipeline.report.images import CaseImages, sections_of
from pipeline.report.pictures import Atlas, Drawn, flicker_groups
from pipeline.report.verdict import CaseVerdict, Word, case_verdict, stage_status, stage_word
from pipeline.store.dictionary import labels_of
from pipeline.store.sections import Answer, Section, Sections, Table, joined
from pipeline.words import clean

TITLE = "Tandem case report"
FOUND = "All that ingest found of this case, and what became of it; series.csv has more."
PROVENANCE = "What was run, with what, and what it gave. Hashes are cut to their first 12 digits."


@dataclass(frozen=True)
class Part:
    """One part of a report below its heading; the pictures of a group are shown in turn, in the same place."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    groups: tuple[tuple[Drawn, ...], ...] = ()


@dataclass(frozen=True)
class CaseContent:
    """All that a report says about one case.

    Attributes:
        date: of the report, ISO 8601.
        tandem: version.
        stages: name of each stage that ran, its status, and the word whose colour it bears.
        first: the picture of the first page.
        parts: what the stages say in their order, then what is known of every case.
    """

    case_id: str
    title: str
    date: str
    tandem: str
    verdict: CaseVerdict
    stages: tuple[tuple[str, str, Word], ...]
    answers: tuple[Answer, ...]
    first: Drawn | None
    parts: tuple[Part, ...]

    @property
    def pictures(self) -> tuple[Drawn, ...]:
        """All pictures, in their order."""
        return tuple(picture for part in self.parts for group in part.groups for picture in group)


def case_content(
    case_id: str,
    records: Sequence[Record],
    dataset_dir: Path,
    today: date,
    given: Mapping[str, Path] | None = None,
    found: Sequence[Mapping[str, str]] = (),
) -> CaseContent:
    """Gather what the report says about a case, whatever became of it.

    Args:
        case_id: of the case.
        records: one a stage, in order.
        dataset_dir: the run folder, in which their outputs lie.
        today: date of the report.
        given: files of images that no stage has made, by their keys.
        found: rows of `series.csv`, what ingest found of the case.

    Raises:
        CaseError: E_CHANGED when an output is not what was recorded, E_GRID when a map is not on its image's grid.
    """
    parts_of = {record.stage: sections_of(record, dataset_dir) for record in records}
    said, labels = joined(parts_of.values()), labels_of(records)
    images = CaseImages(records, dataset_dir, given or {})
    atlas = Atlas(images, said)
    parts = tuple(_part(section, atlas, images) for section in said.sections)
    drawn = [picture for part in parts for group in part.groups for picture in group]
    ranked = [picture for picture in drawn if picture.rank > 0]
    return CaseContent(
        case_id=clean(case_id),
        title=TITLE,
        date=today.isoformat(),
        tandem=__version__,
        verdict=case_verdict(records),
        stages=tuple((clean(record.stage), stage_status(record), stage_word(record)) for record in records),
        answers=tuple(
            Answer(clean(labels.get((stage, item.label), item.label)), clean(item.value), clean(item.note))
            for stage, part in parts_of.items()
            for item in part.answers
        ),
        first=max(ranked, key=lambda picture: picture.rank, default=None),
        parts=(*parts, *_found(found, records), *_always(records, said)),
    )


def _part(section: Section, atlas: Atlas, images: CaseImages) -> Part:
    """One section with its pictures drawn; a picture whose images are not there is left out, with a sentence."""
    groups, gaps = [], []
    for group in flicker_groups(section.pictures):
        there = [picture for picture in group if all(key in images for key in atlas.needed(picture))]
        gaps += [
            f"There is no picture “{clean(item.title)}”: its images are not there."
            for item in group
            if item not in there
        ]
        groups += [atlas.draw(there)] if there else []
    sentences = tuple(clean(sentence) for sentence in section.sentences)
    return Part(clean(section.title), (*sentences, *gaps), tuple(map(_cleaned, section.tables)), tuple(groups))


def _cleaned(table: Table) -> Table:
    return Table(
        clean(table.title),
        tuple(map(clean, table.columns)),
        tuple(tuple(map(clean, row)) for row in table.rows),
        {clean(text): clean(line) for text, line in table.help.items()},
    )


def _found(rows: Sequence[Mapping[str, str]], records: Sequence[Record]) -> tuple[Part, ...]:
    """What there was of the case; where nothing was made of it, also why each series or file plays no role."""
    begun = any(record.status == "done" for record in records)
    table = tables.found(rows, reasons=not begun)
    return (Part("What was found", (FOUND,), (table,)),) if rows else ()


def _always(records: Sequence[Record], said: Sections) -> tuple[Part, ...]:
    """What is known of every case."""
    names = {item.key: item.name for item in said.displays}
    pictures = [picture for section in said.sections for picture in section.pictures]
    panels = [panel for picture in pictures if picture.axes for panel in picture.panels]
    flat = {key for panel in panels for key in (panel.image, panel.coloured and panel.coloured.key) if key}
    notes = tables.unique([flag for record in records for flag in record.flags])
    volumes, measures = tables.volumes(records, names, notes, flat), tables.measures(records)
    numbered = tuple(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    provenance = (tables.stages(records), tables.outputs(records), tables.versions(records))
    parts = (
        Part("Provenance", (PROVENANCE,), tuple(table for table in (volumes, *provenance) if table.rows)),
        Part("Notes from the stages", numbered),
        Part("All measures", (), (measures,) if measures.rows else ()),
    )
    return tuple(part for part in parts if part.tables or part.sentences)
