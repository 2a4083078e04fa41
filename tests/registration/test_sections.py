"""What a report says of an alignment."""

from __future__ import annotations

import pytest

from pipeline.registration import AlignmentLimits
from pipeline.registration.sections import alignment_section
from pipeline.store.sections import Section
from pipeline.words import parted

IMAGES, NAMES = ("ct", "mr", "mr_aligned"), ("CT", "MR")


def section(**quality: object) -> Section:
    return alignment_section(IMAGES, NAMES, {"verdict": "pass", "reason": "", **quality}, AlignmentLimits())


def test_the_first_page_shows_the_worst_alignment_before_all_other_results() -> None:
    """The labels of the fusion network have the rank 30."""
    ranks = [max(picture.rank for picture in section(verdict=word).pictures) for word in ("pass", "warn", "fail")]
    assert ranks[0] < 30 < ranks[1] < ranks[2]


def test_what_the_alignment_moved_is_not_outlined_before_it() -> None:
    assert {picture.key: picture.without for picture in section().pictures} == {
        "mr_before": "mr_aligned",
        "mr_after": "",
    }


def test_a_value_beside_its_limit_has_the_digits_that_part_them() -> None:
    rows = section(overlap_dice_after=0.6499999, start_disagreement_mm=0.5).tables[0].rows
    assert rows[0] == ("Overlap dice after", "0.6499999", "at least 0.65")
    assert rows[1] == ("Start disagreement", "0.5 mm", "at most 1 mm")


def test_where_headers_and_images_contradict_each_other_both_places_are_pictured_with_both_numbers() -> None:
    said = section(
        verdict="warn", nmi_before=1.0479, header_conflict_mm=8.8, header_conflict_nmi=1.0485, header_kept=False
    )
    shown = {picture.key: picture.panels[1].image for picture in said.pictures}
    assert shown == {"mr_before": "mr", "mr_after": "mr_aligned"}
    assert {picture.flicker for picture in said.pictures} == {"mr"}  # in turn, in the same place
    values = {row[0]: row[1] for row in said.tables[0].rows}
    assert (values["Header conflict"], values["NMI before"], values["Header conflict NMI"]) == (
        "8.8 mm",
        "1.048",
        "1.048",
    )


@pytest.mark.parametrize(
    ("value", "limit", "digits", "text"),
    [(0.6, 0.75, 2, "0.60"), (0.7496, 0.75, 2, "0.7496"), (1.04, 1.0, 1, "1.04"), (3.04, 3.02, 1, "3.04")],
)
def test_a_value_is_not_rounded_onto_or_beyond_its_limit(value: float, limit: float, digits: int, text: str) -> None:
    assert parted(value, limit, digits) == text
