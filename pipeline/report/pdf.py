"""The PDF report of a case: the answer on the first page, then what each stage says, then where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib.units import inch, mm
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, NextPageTemplate, PageBreak, Spacer, Table

from pipeline.report.content import CaseContent, Part
from pipeline.report.paper import (
    BARE,
    LINE,
    TEXT_HEIGHT,
    TEXT_WIDTH,
    VERDICT_COLOURS,
    Png,
    Style,
    banner,
    build,
    fitting_widths,
    paragraph,
    paragraph_of,
    table,
)
from pipeline.report.pictures import Drawn
from pipeline.report.sheet import DPI
from pipeline.store.sections import Answer
from pipeline.store.sections import Table as Rows

#: How many reasons and answers the first page has room for beside its picture; the page after has them all.
REASONS, ANSWERS = 4, 8
#: A picture that would be lower than this is left to its own page.
LEAST_HEIGHT = 40 * mm


def case_pdf(content: CaseContent) -> bytes:
    """Lay a case out on A4.

    Returns:
        PDF bytes; the same for the same content.
    """
    story = _first_page(content)
    picture = _first_picture(content, story)
    story += picture
    if len(content.verdict.reasons) > REASONS or len(content.answers) > ANSWERS:
        story += [PageBreak(), _banner(content, content.verdict.reasons), *_answers(content.answers)]
    for part in content.parts:
        story += _part(part, content.first if picture else None)
    return build(_turned_once(story), content.title, content.case_id, f"Tandem {content.tandem}")


def _first_page(content: CaseContent) -> list[Flowable]:
    """Verdict and answers."""
    names = [[paragraph(content.title, "kicker"), paragraph(content.date, "right")]]
    head = Table(names, colWidths=[TEXT_WIDTH / 2] * 2, style=BARE)
    story: list[Flowable] = [head, paragraph(content.case_id, "title"), Spacer(0, 2 * mm)]
    story += [_banner(content, content.verdict.reasons[:REASONS]), Spacer(0, 2 * mm)]
    if content.stages:
        story += [paragraph_of([(f"{name}: {status}", VERDICT_COLOURS[word]) for name, status, word in content.stages])]
    return story + _answers(content.answers[:ANSWERS])


def _first_picture(content: CaseContent, above: Sequence[Flowable]) -> list[Flowable]:
    """The picture of the first page, as large as what is left of it; nothing where too little is left."""
    if content.first is None:
        return []
    caption = paragraph(content.first.caption, "caption")
    taken = sum(
        item.wrap(TEXT_WIDTH, TEXT_HEIGHT)[1] + item.getSpaceBefore() + item.getSpaceAfter()
        for item in (*above, caption)
    )
    left = TEXT_HEIGHT - taken - 4 * mm
    return [Spacer(0, 2 * mm), _image(content.first, left), caption] if left >= LEAST_HEIGHT else []


def _banner(content: CaseContent, reasons: Sequence[str]) -> Flowable:
    verdict = content.verdict
    cell: list[Flowable] = [paragraph(verdict.headline, "verdict", VERDICT_COLOURS[verdict.word])]
    cell += [paragraph(reason, "lead") for reason in reasons]
    if more := len(verdict.reasons) - len(reasons):
        cell += [paragraph(f"… and {more} more on the next page.", "lead")]
    if verdict.code:
        cell += [paragraph(f"Code {verdict.code}", "strong")]
    if verdict.remedy:
        cell += [paragraph(f"What to do: {verdict.remedy}", "body")]
    return banner(verdict.word, cell)


def _answers(answers: Sequence[Answer]) -> list[Flowable]:
    if not answers:
        return []
    rows: list[list[Any]] = [
        [
            paragraph(item.label, "quiet"),
            [paragraph(item.value, "answer"), *([paragraph(item.note, "note")] if item.note else [])],
        ]
        for item in answers
    ]
    style: Style = [*BARE, ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE), ("TOPPADDING", (0, 0), (-1, -1), 1.2 * mm)]
    style += [("BOTTOMPADDING", (0, 0), (-1, -1), 1.4 * mm)]
    return [Spacer(0, 2 * mm), Table(rows, colWidths=[TEXT_WIDTH * 0.28, TEXT_WIDTH * 0.72], style=style)]


def _part(part: Part, shown: Drawn | None) -> list[Flowable]:
    """One part; a picture that the first page has `shown` comes again only beside those that it alternates with."""
    texts: list[Flowable] = [paragraph(sentence, "body") for sentence in part.sentences]
    story: list[Flowable] = []
    if texts or part.tables:  # pictures have a title of their own, and a page
        head = paragraph(part.title, "heading")
        story = [CondPageBreak(40 * mm), KeepTogether([head, *texts[:1]]), *texts[1:]]
    for rows in part.tables:
        story += _table(rows)
    pictures = [picture for group in part.groups if group != (shown,) for picture in group]
    lying = False
    for picture in pictures:
        image, caption = _image(picture), paragraph(picture.caption, "caption")
        was_lying, lying = lying, image.drawWidth > TEXT_WIDTH
        if lying or was_lying:
            story += [NextPageTemplate("lying" if lying else "upright"), PageBreak()]
        story += [image, caption] if lying else [KeepTogether([Spacer(0, 3 * mm), image, caption])]
    return [*story, NextPageTemplate("upright"), PageBreak()] if lying else story


def _turned_once(story: Sequence[Flowable]) -> list[Flowable]:
    """Without the turns of the page that the next turn takes back: between them would be an empty page."""
    kinds = [type(item) for item in story]
    idle = {at for at in range(len(kinds)) if kinds[at : at + 4] == [NextPageTemplate, PageBreak] * 2}
    return [item for at, item in enumerate(story) if not {at, at - 1} & idle]


def _table(rows: Rows) -> list[Flowable]:
    head = [CondPageBreak(30 * mm), paragraph(rows.title, "subheading")] if rows.title else [Spacer(0, 2 * mm)]
    laid = table(rows.columns, rows.rows, fitting_widths(rows.columns, rows.rows), rows.help)
    notes = [paragraph(f"{name}: {rows.help[name]}", "note") for name in rows.columns if name in rows.help]
    return [*head, laid, *([Spacer(0, 1.5 * mm)] if notes else []), *notes]


def _image(picture: Drawn, height: float | None = None) -> Png:
    """The picture at its own size, which fits a page, or as large as fits a height and the text's width."""
    image = Png(picture.png)
    wide, high = image.imageWidth / DPI * inch, image.imageHeight / DPI * inch
    scale = 1.0 if height is None else min(1.0, height / high, TEXT_WIDTH / wide)
    image.drawWidth, image.drawHeight = wide * scale, high * scale
    return image
