"""The web pages of a report: self-contained files, no script, no network (Jinja2 with autoescape)."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import fusion, why
from pipeline.report.verdict import GRADE_WORDS
from pipeline.words import DISCLAIMER, in_words

if TYPE_CHECKING:
    from pipeline.report.content import CaseContent
    from pipeline.report.pictures import Picture


def case_page(content: CaseContent) -> bytes:
    """Lay a case out as one self-contained web page.

    Returns:
        HTML bytes, UTF-8; the same for the same content.
    """
    return render(
        "case.html",
        content.tandem,
        content=content,
        grades=GRADE_WORDS,
        alignments=_alignments(content.figures),
        galleries=[picture for picture in content.figures if picture.key.startswith("gallery_")],
        thumbnails=defaultdict(str, {picture.key.removesuffix("_thumbnail"): picture for picture in content.pictures}),
        stages=[astuple(row) for row in content.stages],
        outputs=[astuple(row) for row in content.outputs],
        fused_columns=fusion.COLUMNS,
        why_columns=why.COLUMNS,
        why_caveat=why.CAVEAT,
    )


def render(template: str, tandem: str, **values: Any) -> bytes:
    """Fill one of the templates; every value is escaped.

    Args:
        template: file name below `templates/`.
        tandem: version for the footer.
        values: what the template needs; a missing one is an error.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(data_uri=lambda picture: data_uri(picture.png), in_words=in_words)
    text = environment.get_template(template).render(disclaimer=DISCLAIMER, tandem=tandem, **values)
    return text.encode("utf-8")


def data_uri(png: bytes) -> str:
    """A PNG as a link that holds its own data."""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _alignments(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Pictures before and after alignment, grouped by role, in their order."""
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        role, _, when = picture.key.rpartition("_")
        if when in ("before", "after"):
            groups.setdefault(role, []).append(picture)
    return list(groups.values())
