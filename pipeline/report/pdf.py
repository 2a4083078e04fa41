"""The PDF report of a case: the verdict first, then pictures, then where everything came from (reportlab)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from reportlab.lib import colors
from reportlab.lib.units import inch, mm
from reportlab.platypus import CondPageBreak, Flowable, Image, KeepTogether, NextPageTemplate, PageBreak, Spacer, Table

from pipeline.report import fusion, why
from pipeline.report.content import CaseContent
from pipeline.report.paper import LINE, TEXT_WIDTH, TINTS, VERDICT_COLOURS, Style, build, paragraph, table
from pipeline.report.pictures import Picture
from pipeline.report.sheet import DPI
from pipeline.report.tables import Measure, Quality, Volume
from pipeline.report.verdict import GRADE_WORDS
from pipeline.words import in_words

MEASURE_COLUMNS = 2
THUMBNAIL_WIDTH = 40 * mm
BARE: Style = [
    ("ALIGN", (1, 0), (1, -1), "RIGHT"),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    *((side, (0, 0), (-1, -1), 0) for side in ("LEFTPADDING", "RIGHTPADDING", "TOPPADDING", "BOTTOMPADDING")),
]


def case_pdf(content: CaseContent) -> bytes:
    """Lay a case out on A4.

    Returns:
        PDF bytes; the same for the same content.
    """
    story = [*_summary(content), *_pictures(content), *_network(content), *_provenance(content)]
    return build(story, content.title, content.case_id, f"Tandem {content.tandem}")


def _summary(content: CaseContent) -> list[Flowable]:
    story: list[Flowable] = [paragraph(content.title, "kicker"), paragraph(content.case_id, "title"), Spacer(0, 3 * mm)]
    story += [_banner(content), Spacer(0, 2 * mm)]
    for quality in content.qualities:
        story += [KeepTogether([paragraph(quality.name, "heading"), _quality(quality, content)])]
    story += [paragraph("Volumes", "heading"), _volumes(content.volumes)]
    if content.measures:
        story += _measures(content.measures)
    if content.notes:
        notes = [paragraph(f"{number}. {note}", "body") for number, note in enumerate(content.notes, start=1)]
        story += [KeepTogether([paragraph("Notes from the stages", "heading"), notes[0]]), *notes[1:]]
    return story


def _banner(content: CaseContent) -> Flowable:
    verdict = content.verdict
    headline = verdict.headline if not verdict.stage else f"{verdict.headline} in the {verdict.stage} stage"
    cell: list[Flowable] = [paragraph(headline, "verdict", VERDICT_COLOURS[verdict.word])]
    cell += [paragraph(reason, "lead") for reason in verdict.reasons]
    if verdict.code:
        cell += [paragraph(f"Code {verdict.code}", "strong")]
    if verdict.remedy:
        cell += [paragraph(f"What to do: {verdict.remedy}", "body")]
    return _box(cell, VERDICT_COLOURS[verdict.word], TINTS[verdict.word])


def _box(cell: list[Flowable], bar: colors.Color, tint: colors.Color) -> Flowable:
    style: Style = [
        ("BACKGROUND", (0, 0), (-1, -1), tint),
        ("LINEBEFORE", (0, 0), (0, -1), 3, bar),
        ("LEFTPADDING", (0, 0), (-1, -1), 5 * mm),
        ("RIGHTPADDING", (0, 0), (-1, -1), 5 * mm),
        ("TOPPADDING", (0, 0), (-1, -1), 3 * mm),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5 * mm),
    ]
    return Table([[part] for part in [cell]], colWidths=[TEXT_WIDTH], style=style)


def _quality(quality: Quality, content: CaseContent) -> Flowable:
    """The verdict over an alignment with its numbers; at the right the axial overlay, where there is one."""
    thumbnail = next((item for item in content.pictures if item.key == f"{quality.role}_thumbnail"), None)
    width = TEXT_WIDTH - (THUMBNAIL_WIDTH + 6 * mm if thumbnail else 0)
    colour = VERDICT_COLOURS[GRADE_WORDS[quality.grade]]
    parts: list[Flowable] = [paragraph(quality.label, "strong", colour), paragraph(quality.reason, "body")]
    if quality.measures:
        parts += [Spacer(0, 1.5 * mm), _grid(quality.measures, width)]
    picture = _fitted(thumbnail, THUMBNAIL_WIDTH) if thumbnail else ""
    return Table([[parts, picture]], colWidths=[width, TEXT_WIDTH - width], style=BARE)


def _grid(measures: Sequence[Measure], width: float = TEXT_WIDTH) -> Flowable:
    """Names and values, two pairs side by side, read down the columns."""
    height = -(-len(measures) // MEASURE_COLUMNS)
    rows: list[list[Any]] = []
    for row in range(height):
        cells: list[Any] = []
        for item in measures[row::height]:
            cells += [paragraph(item.name, "quiet"), paragraph(item.text, "value")]
        rows.append(cells + [""] * (2 * MEASURE_COLUMNS - len(cells)))
    style: Style = [
        ("LINEBELOW", (0, 0), (1, -1), 0.4, LINE),
        ("LINEBELOW", (2, 0), (3, -1), 0.4, LINE),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("TOPPADDING", (0, 0), (-1, -1), 1.1 * mm),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.1 * mm),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (1, 0), (1, -1), 5 * mm),
        ("LEFTPADDING", (2, 0), (2, -1), 5 * mm),
        ("RIGHTPADDING", (3, 0), (3, -1), 0),
    ]
    half = width / MEASURE_COLUMNS
    return Table(rows, colWidths=[half * 0.6, half * 0.4] * MEASURE_COLUMNS, style=style)


def _volumes(volumes: Sequence[Volume]) -> Flowable:
    if not volumes:
        return paragraph("No volume was made for this case.", "body")
    names = ("Volume", "Voxels", "Voxel size, mm", "Axes", "Field of view, mm", "Verdict and notes")
    rows = [
        (item.name, item.voxels, item.spacing, item.orientation, item.field_of_view, item.remarks) for item in volumes
    ]
    return table(names, rows, (0.17, 0.16, 0.18, 0.13, 0.165, 0.195))


def _measures(groups: Sequence[tuple[str, Sequence[Measure]]]) -> list[Flowable]:
    story: list[Flowable] = []
    for number, (stage, measures) in enumerate(groups):
        head = [paragraph("Measures", "heading")] if number == 0 else []
        story.append(KeepTogether([*head, paragraph(in_words(stage), "subheading"), _grid(measures)]))
    return story


def _pictures(content: CaseContent) -> list[Flowable]:
    gaps = [paragraph(gap, "body") for gap in content.gaps]
    story: list[Flowable] = [paragraph("Pictures", "heading"), *gaps] if gaps else []
    if not content.figures:
        return story
    for picture in content.figures:
        story += _on_a_page(picture)
    return [*story, NextPageTemplate("upright"), PageBreak()]


def _on_a_page(picture: Picture) -> list[Flowable]:
    image = _image(picture)
    page = "lying" if image.drawWidth > TEXT_WIDTH else "upright"
    return [NextPageTemplate(page), PageBreak(), image, paragraph(picture.caption, "caption")]


def _network(content: CaseContent) -> list[Flowable]:
    """What the fusion network says and what that comes from: texts and tables on one page, then the pictures."""
    fused, reasons = content.fused, content.why
    story: list[Flowable] = []
    if fused:
        story += [paragraph(fused.heading, "heading"), paragraph(fused.summary, "body")]
        story += [table(fusion.COLUMNS, fused.rows, (0.28, 0.14, 0.58))] if fused.rows else []
    if reasons:
        story += [paragraph(reasons.heading, "heading"), paragraph(why.CAVEAT, "body"), Spacer(0, 1.5 * mm)]
        story += [table(why.COLUMNS, reasons.rows, (0.15, 0.16, 0.17, 0.18, 0.14, 0.2))] if reasons.rows else []
    for picture in (*(fused.pictures if fused else ()), *(reasons.pictures if reasons else ())):
        story += _on_a_page(picture)
    return [*story, NextPageTemplate("upright"), PageBreak()] if story else []


def _fitted(picture: Picture, width: float) -> Image:
    """The picture with its longer side as long as `width`."""
    image = Image(io.BytesIO(picture.png), hAlign="RIGHT")
    scale = width / max(image.imageWidth, image.imageHeight)
    image.drawWidth, image.drawHeight = image.imageWidth * scale, image.imageHeight * scale
    return image


def _image(picture: Picture) -> Image:
    """The picture at its own size, which fits a page."""
    image = Image(io.BytesIO(picture.png), hAlign="CENTER")
    image.drawWidth, image.drawHeight = image.imageWidth / DPI * inch, image.imageHeight / DPI * inch
    return image


def _provenance(content: CaseContent) -> list[Flowable]:
    story: list[Flowable] = [
        paragraph("Provenance", "heading"),
        paragraph("What was run, with what, and what it gave. Hashes are cut to their first 12 digits.", "body"),
        paragraph("Stages", "subheading"),
        table(
            ("Stage", "Status", "Time", "Resume key", "Error"),
            [(row.stage, row.status, row.seconds, row.key, row.error or "–") for row in content.stages],
            (0.14, 0.14, 0.14, 0.18, 0.40),
        ),
    ]
    outputs = [(row.stage, row.name, row.kind, row.sha256) for row in content.outputs]
    story += [CondPageBreak(30 * mm), paragraph("Outputs", "subheading")]
    story += [table(("Stage", "Output", "Kind", "SHA-256"), outputs, (0.2, 0.34, 0.22, 0.24))]
    story += [CondPageBreak(30 * mm), paragraph("Software", "subheading")]
    return [*story, table(("Package", "Version"), content.versions, (0.4, 0.6))]
