"""The paper on which a PDF is laid out: fonts, colours, paragraph and table styles, header and footer (reportlab)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from reportlab import rl_config
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, CondPageBreak, Flowable, Frame, Image, PageTemplate, Paragraph, Table

from pipeline.words import DISCLAIMER, clean

Style = list[tuple[Any, ...]]

#: DejaVu comes with matplotlib; it is embedded, so that every reader sees the same letters.
REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"
MARGIN = 15 * mm
TOP, BOTTOM = 20 * mm, 19 * mm
TEXT_WIDTH, TEXT_HEIGHT = A4[0] - 2 * MARGIN, A4[1] - TOP - BOTTOM
#: A table's cells without lines and padding.
BARE: Style = [
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    *((side, (0, 0), (-1, -1), 0) for side in ("LEFTPADDING", "RIGHTPADDING", "TOPPADDING", "BOTTOMPADDING")),
]
#: Of a table's cells: what is left and right of the text, and beyond which width a text is not counted.
CELL_PADDING, WIDEST = 1.6 * mm, 60 * mm
#: Of the text's width, in a plain table.
FIRST_COLUMN = 0.23

INK, QUIET, FAINT, LINE, ACCENT = (HexColor(code) for code in ("#1d252c", "#5b6770", "#f4f6f7", "#d5dade", "#17566b"))
VERDICT_COLOURS: dict[str, Color] = {
    "done": HexColor("#1b6e45"),
    "warning": HexColor("#8f5300"),
    "failed": HexColor("#ab2018"),
    "quarantined": HexColor("#5d3a94"),
}
TINTS: dict[str, Color] = {
    "done": HexColor("#edf6f1"),
    "warning": HexColor("#fdf5e6"),
    "failed": HexColor("#fcefee"),
    "quarantined": HexColor("#f3effa"),
}


def _style(size: float, colour: Color = INK, bold: bool = False, **more: Any) -> ParagraphStyle:
    font = BOLD if bold else REGULAR
    more = {"leading": size * 1.4, "spaceAfter": 0, **more}
    return ParagraphStyle(f"{font}{size}", fontName=font, fontSize=size, textColor=colour, **more)


STYLES: dict[str, ParagraphStyle] = {
    "kicker": _style(9, ACCENT, bold=True),
    "title": _style(19, bold=True, leading=24),
    "verdict": _style(15, bold=True, leading=20, spaceAfter=2),
    "lead": _style(10),
    "heading": _style(11.5, ACCENT, bold=True, spaceBefore=5 * mm, spaceAfter=1.8 * mm),
    "subheading": _style(9, bold=True, spaceBefore=2.5 * mm, spaceAfter=1.2 * mm),
    "strong": _style(9, bold=True),
    "body": _style(9),
    "cell": _style(8),
    "quiet": _style(8.5, QUIET),
    "right": _style(9, QUIET, alignment=TA_RIGHT),
    "answer": _style(10.5, bold=True),
    "note": _style(7.5, QUIET),
    "column": _style(7.5, QUIET, bold=True),
    "caption": _style(8, QUIET, spaceBefore=2 * mm),
}


def paragraph(text: str, style: str, colour: Color | None = None) -> Paragraph:
    """A paragraph of plain text: markup in it is printed, not followed."""
    _register_fonts()
    chosen = STYLES[style]
    if colour is not None:
        chosen = ParagraphStyle("coloured", parent=chosen, textColor=colour)
    return Paragraph(escape(clean(text)), chosen)


def paragraph_of(parts: Sequence[tuple[str, Color]]) -> Paragraph:
    """A line of texts, each in its own colour."""
    _register_fonts()
    marked = [
        f'<font color="{colour.hexval().replace("0x", "#")}">{escape(clean(text))}</font>' for text, colour in parts
    ]
    return Paragraph(" &nbsp; ".join(marked), STYLES["strong"])


def table(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    help_of: Mapping[str, str] | None = None,
) -> Flowable:
    """A table under a row of names, which comes again on the next page.

    Args:
        names: the columns' names.
        rows: texts.
        widths: fractions of the text's width.
        help_of: text of a row's first cell -> what it means; stands below it.
    """
    if not rows:
        return paragraph("None.", "body")
    cells: list[list[Any]] = [[paragraph(name, "column") for name in names]]
    for first, *others in rows:
        helped = [paragraph(help_of[first], "note")] if help_of and first in help_of else []
        cells += [[[paragraph(first, "cell"), *helped], *(paragraph(text, "cell") for text in others)]]
    style: Style = [
        ("BACKGROUND", (0, 0), (-1, 0), FAINT),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 1.3 * mm),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5 * mm),
        ("LEFTPADDING", (0, 0), (-1, -1), CELL_PADDING),
        ("RIGHTPADDING", (0, 0), (-1, -1), CELL_PADDING),
    ]
    return Table(cells, colWidths=[width * TEXT_WIDTH for width in widths], repeatRows=1, style=style)


def banner(word: str, lines: Sequence[Flowable]) -> Flowable:
    """Lines on the tint of a verdict's word, with a bar of its colour at the left."""
    style: Style = [
        ("BACKGROUND", (0, 0), (-1, -1), TINTS[word]),
        ("LINEBEFORE", (0, 0), (0, -1), 3, VERDICT_COLOURS[word]),
        *((side, (0, 0), (-1, -1), 5 * mm) for side in ("LEFTPADDING", "RIGHTPADDING")),
        *((side, (0, 0), (-1, -1), 3 * mm) for side in ("TOPPADDING", "BOTTOMPADDING")),
    ]
    return Table([[list(lines)]], colWidths=[TEXT_WIDTH], style=style)


@dataclass(frozen=True)
class PlainTable:
    """Texts in rows and columns.

    Attributes:
        heading: above it.
        columns: their names.
        rows: texts, one a column.
        note: a sentence below it.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def laid(self) -> list[Flowable]:
        """Heading, table and note; the columns behind the first share what it leaves."""
        others = len(self.columns) - 1
        widths = (FIRST_COLUMN, *[(1 - FIRST_COLUMN) / others] * others)
        head = [CondPageBreak(40 * mm), paragraph(self.heading, "heading")]
        note = [paragraph(self.note, "caption")] if self.note else []
        return [*head, table(self.columns, self.rows, widths), *note]


class Png(Image):
    """A picture whose pixels are held only while it is drawn: a document may have dozens of some megabytes each."""

    def __init__(self, png: bytes, align: str = "CENTER") -> None:
        super().__init__(io.BytesIO(png), hAlign=align)
        self._png = png
        del self._img  # it was opened for its size

    def draw(self) -> None:
        """Draw it, and let its pixels go."""
        self._file = io.BytesIO(self._png)
        super().draw()
        del self._img


def picture(png: bytes, width: float, highest: float = math.inf) -> Png:
    """A picture at the left, as wide as asked for, or as is as high as a page may spare."""
    image = Png(png, "LEFT")
    width = min(width, highest * image.imageWidth / image.imageHeight)
    image.drawWidth, image.drawHeight = width, width * image.imageHeight / image.imageWidth
    return image


def fitting_widths(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[float]:
    """Fractions of the text's width for a table's columns: each has room for its longest word, then for its texts."""
    _register_fonts()
    columns = list(zip(names, *rows, strict=True))
    least = [max(_width(word) for text in column for word in text.split() or [""]) for column in columns]
    wanted = [
        max(needed, *(min(_width(text), WIDEST) for text in column))
        for needed, column in zip(least, columns, strict=True)
    ]
    spare = max(0.0, TEXT_WIDTH - sum(least)) / max(1.0, sum(wanted) - sum(least))
    widths = [needed + spare * (want - needed) for needed, want in zip(least, wanted, strict=True)]
    return [width / sum(widths) for width in widths]


def _width(text: str) -> float:
    """Of a text in a table's cell, points; a word longer than a third of the page is broken."""
    return min(pdfmetrics.stringWidth(text, BOLD, 7.6) + 2 * CELL_PADDING, TEXT_WIDTH / 3)


def build(story: Sequence[Flowable], title: str, case_id: str, producer: str) -> bytes:
    """Put a story on numbered pages.

    Args:
        story: what to lay out.
        title: at the left of every header.
        case_id: at the right of every header.
        producer: in every footer, between the disclaimer and the page.

    Returns:
        PDF bytes, the same for the same story (reportlab's `invariant`: no time, no random identifier).
    """
    _register_fonts()
    rl_config.useA85 = 0  # binary streams: pictures in text form take seconds and a quarter more bytes
    stream = io.BytesIO()
    document = BaseDocTemplate(
        stream, pagesize=A4, invariant=1, title=f"{title} {case_id}", author=producer, subject=DISCLAIMER, lang="en"
    )
    document.addPageTemplates([_page("upright", A4), _page("lying", landscape(A4))])

    def canvas(*args: Any, **settings: Any) -> Canvas:
        return _NumberedCanvas(*args, texts=(title, case_id, producer), **settings)

    document.build(list(story), canvasmaker=canvas)
    return stream.getvalue()


def _page(name: str, size: tuple[float, float]) -> PageTemplate:
    area = Frame(MARGIN, BOTTOM, size[0] - 2 * MARGIN, size[1] - TOP - BOTTOM, 0, 0, 0, 0)
    return PageTemplate(name, [area], pagesize=size)


class _NumberedCanvas(Canvas):
    """Keeps the pages back until their number is known, for "page 1 of 3"."""

    def __init__(self, *args: Any, texts: tuple[str, str, str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._texts = texts
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        kept = self._kept
        for number, state in enumerate(kept, start=1):
            self.__dict__.update(state)
            self._furniture(number, len(kept))
            super().showPage()
        super().save()

    def _furniture(self, number: int, count: int) -> None:
        """Header and footer of one page."""
        title, case_id, producer = self._texts
        width, height = self._pagesize
        left, right, top, bottom = MARGIN, width - MARGIN, height - 13 * mm, 11 * mm
        self.setStrokeColor(LINE)
        self.setLineWidth(0.4)
        self.setFont(REGULAR, 7.5)
        self.setFillColor(QUIET)
        if number > 1:
            # The first page bears both as its title.
            self.drawString(left, top, title)
            self.drawRightString(right, top, shorten(case_id, TEXT_WIDTH / 2, 7.5))
            self.line(left, top - 2 * mm, right, top - 2 * mm)
        page, gap = f"Page {number} of {count}", 4 * mm
        begin = left + pdfmetrics.stringWidth(DISCLAIMER, BOLD, 7.5) + gap
        end = right - pdfmetrics.stringWidth(page, REGULAR, 7.5) - gap
        self.drawCentredString((begin + end) / 2, bottom, shorten(producer, end - begin, 7.5))
        self.drawRightString(right, bottom, page)
        self.setFont(BOLD, 7.5)
        self.drawString(left, bottom, DISCLAIMER)
        self.line(left, bottom + 3.5 * mm, right, bottom + 3.5 * mm)


def shorten(text: str, width: float, size: float) -> str:
    """Cut a text that is wider than `width` points, and say so with an ellipsis."""
    if pdfmetrics.stringWidth(text, REGULAR, size) <= width:
        return text
    while text and pdfmetrics.stringWidth(f"{text}…", REGULAR, size) > width:
        text = text[:-1]
    return f"{text}…"


def _register_fonts() -> None:
    """Make the fonts known to reportlab, whose list of fonts is one for the process."""
    known = pdfmetrics.getRegisteredFontNames()
    for name in (REGULAR, BOLD):
        if name not in known:
            pdfmetrics.registerFont(TTFont(name, Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"))
