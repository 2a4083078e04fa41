"""What a report says about one case, ready to be laid out: texts, tables and pictures. No layout here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import __version__
from pipeline.cases import Record
from pipeline.report import fusion, tables, why
from pipeline.report.pictures import Picture, Roles, case_pictures, image_of
from pipeline.report.tables import Measure, Output, Quality, StageRow, Volume
from pipeline.report.verdict import Verdict, case_verdict
from pipeline.words import clean, in_words

TITLE = "Tandem case report"


@dataclass(frozen=True)
class CaseContent:
    """All that a report says about one case.

    Attributes:
        gaps: sentences about pictures that could not be drawn.
        notes: what the stages flagged for the reader.
        versions: software and version, by name.
        fused: what the fusion network says, where it was asked.
        why: what the network's class comes from, where somebody asked.
    """

    case_id: str
    title: str
    tandem: str
    verdict: Verdict
    qualities: tuple[Quality, ...]
    volumes: tuple[Volume, ...]
    measures: tuple[tuple[str, tuple[Measure, ...]], ...]
    notes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    gaps: tuple[str, ...]
    stages: tuple[StageRow, ...]
    outputs: tuple[Output, ...]
    versions: tuple[tuple[str, str], ...]
    fused: fusion.Fused | None = None
    why: why.Why | None = None

    @property
    def figures(self) -> tuple[Picture, ...]:
        """The pictures that belong into the report, without thumbnails."""
        return tuple(picture for picture in self.pictures if not picture.key.endswith("_thumbnail"))


def case_content(
    case: Mapping[str, Any],
    fixed: str = "ct",
    moving: Sequence[str] = ("mr",),
    modalities: Mapping[str, str] | None = None,
    ct_window: tuple[float, float] = (40.0, 400.0),
) -> CaseContent:
    """Gather what the report says about a case, whatever became of it.

    Args:
        case: `case_id`; MetaTensors (C, I, J, K) under roles; `records`, one `Record` a stage; `<role>_quality`,
            `measures` and `flags` where a stage gave them.
        fixed: role of the image that gives the grid.
        moving: roles of the images that were aligned to it.
        modalities: role -> DICOM Modality.
        ct_window: level and width in HU for showing CT.

    Raises:
        CaseError: E_GRID when an aligned image is not on the fixed image's grid.
    """
    roles = Roles(fixed, tuple(moving), dict(modalities or {}), ct_window)
    records: tuple[Record, ...] = tuple(case.get("records") or ())
    judged = tables.judged(case, records, roles)
    flags = tables.unique([flag for record in records for flag in record.flags] + list(case.get("flags") or ()))
    pictures = case_pictures(case, roles)
    fused = fusion.case_fused(case, records, roles)
    return CaseContent(
        case_id=clean(case["case_id"]),
        title=TITLE,
        tandem=__version__,
        verdict=case_verdict(records, judged),
        qualities=tuple(tables.quality(role, quality, roles) for role, quality in judged.items()),
        volumes=tables.volumes(case, records, judged, flags, roles),
        measures=tables.measures(case, records, judged, why.PREFIXES + (fusion.PREFIXES if fused else ())),
        notes=flags,
        pictures=pictures,
        gaps=_gaps(case, pictures, roles),
        stages=tuple(tables.stage_row(record) for record in records),
        outputs=tuple(tables.output(record.stage, item) for record in records for item in record.artifacts),
        versions=tables.versions(records),
        fused=fused,
        why=why.case_why(case, records, roles),
    )


def _gaps(case: Mapping[str, Any], pictures: Sequence[Picture], roles: Roles) -> tuple[str, ...]:
    if image_of(case, roles.fixed) is None:
        return (f"There are no alignment pictures: this case has no {in_words(roles.fixed)} image.",)
    drawn = {picture.key for picture in pictures}
    reasons = {"before": "no such image was read", "after": "it was not aligned"}
    return tuple(
        f"There is no picture of {in_words(role)} {when} alignment: {reason}."
        for role in roles.moving
        for when, reason in reasons.items()
        if f"{role}_{when}" not in drawn
    )
