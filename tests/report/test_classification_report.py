"""The report of an evaluation: what its texts, charts, PDF and page say."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pymupdf
import pytest
from PIL import Image

from pipeline.report.classification import (
    ClassificationContent,
    ComparisonRow,
    MeasureRow,
    classification_charts,
    classification_page,
    classification_pdf,
    interval,
    measure_name,
    number,
    p_text,
)
from pipeline.report.curves import COLOURS, Confusion, Line, Panel, confusion_chart, panel_chart
from pipeline.words import DISCLAIMER
from tests.report.test_documents import HOSTILE, Reader

CURVE = Line("Fusion", (0.0, 0.1, 1.0), (0.0, 0.8, 1.0), (0.0, 0.5, 1.0), (0.0, 0.7, 1.0), (0.2, 0.95, 1.0))
CHANCE = Line("chance", (0, 1), (0, 1), reference=True)


@pytest.fixture
def content():
    return ClassificationContent(
        name="Fusion, CT alone",
        summary=("300 cases of 152 patients; patients are resampled whole.",),
        prevalences=(("benign", 0.703), ("malignant", 0.297)),
        measures=(
            MeasureRow("Fusion", "auroc", "malignant", 0.9431, 0.9069, 0.9728, "percentile bootstrap", ""),
            MeasureRow("Fusion", "precision", "malignant", None, None, None, "", "malignant is never predicted"),
            MeasureRow("CT alone", "brier", "all classes", 0.1361, 0.1172, 0.1563, "percentile bootstrap", ""),
        ),
        comparisons=(
            ComparisonRow(
                *("auroc", "malignant", "Fusion", "CT alone", -0.0784, -0.1291, -0.0302, 0.00052, 0.0123, "DeLong", "")
            ),
        ),
        panels=(
            Panel("roc", "malignant", (CURVE, replace(CURVE, name="CT alone", y=(0, 0.5, 1)), CHANCE), "Shaded: 95 %."),
            Panel("precision_recall", "malignant", (CURVE,), "29.7 % of the cases."),
            Panel("decision", "malignant", (CURVE, CHANCE), "Net benefit."),
        ),
        confusions=(Confusion("Fusion", ("benign", "malignant"), ((203, 8), (24, 65))),),
        methods=("Intervals are 95 % intervals.", "Differences are paired."),
    )


def pixels(chart):
    return np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB")).astype(float)


def test_numbers_as_texts():
    assert number(0.94312) == "0.943" and number(1.0) == "1.000"
    assert number(-0.0456, signed=True) == "−0.046" and number(0.0931, signed=True) == "+0.093"
    assert number(-0.0001, signed=True) == "+0.000" and number(None) == "not available"
    assert interval(0.9, 0.955) == "0.900 to 0.955" and interval(None, 0.9) == "not available"
    assert p_text(0.0004) == "< 0.001" and p_text(0.0457) == "0.046" and p_text(None) == "not available"
    assert measure_name("auroc") == "AUROC"
    assert measure_name("sensitivity_at_specificity_0.9") == "Sensitivity at specificity 0.9"


def test_charts_have_names_in_order(content):
    charts = classification_charts(replace(content, panels=content.panels * 2))
    assert [chart.key for chart in charts] == [
        *("roc_1", "precision_recall_1", "decision_1", "roc_2", "precision_recall_2", "decision_2", "confusion_1"),
    ]
    assert charts[0].title == "ROC curve: malignant" and charts[0].caption == "Shaded: 95 %."


def test_curves_are_drawn_where_they_are():
    """Level lines at 0, 0.3 and 1: their rows in the picture are in proportion."""
    colour = np.array([int(COLOURS[0][place : place + 2], 16) for place in (1, 3, 5)])
    rows = []
    for level in (0.0, 0.3, 1.0):
        picture = pixels(panel_chart(Panel("roc", "x", (Line("m", (0, 1), (level, level)),), ""), "roc_1"))
        near = np.abs(picture - colour).max(axis=2) < 8
        # the curve is the longest run of its colour; the legend's sample is short
        counts = near.sum(axis=1)
        rows.append(float(np.flatnonzero(counts > 0.5 * counts.max()).mean()))
    assert (rows[0] - rows[1]) / (rows[0] - rows[2]) == pytest.approx(0.3, abs=0.01)


def test_the_confusion_matrix_has_the_true_class_along_the_rows():
    """All of the first class are right, most of the second are taken for the first."""
    chart = confusion_chart(Confusion("m", ("a", "b"), ((10, 0), (8, 2))), "confusion_1")
    grey = pixels(chart).mean(axis=2)
    # the one cell of 100 %, which is the darkest, gives the size of all four
    rows, columns = (np.flatnonzero((grey < 80).mean(axis=axis) > 0.25) for axis in (1, 0))
    height, width = np.ptp(rows), np.ptp(columns)
    assert 200 < height == pytest.approx(width, rel=0.02)

    def shade(row, column):
        """Of a corner of a cell, away from its text."""
        top, left = rows[0] + row * height + height // 8, columns[0] + column * width + width // 8
        return np.median(grey[top : top + 20, left : left + 20])

    assert shade(0, 0) < shade(1, 0) < shade(1, 1) < shade(0, 1)


def test_the_pdf_says_what_the_content_says(content):
    data = classification_pdf(content, classification_charts(content))
    with pymupdf.open(stream=data) as document:
        pages = [" ".join(page.get_text().split()) for page in document]
        pictures = [image for page in document for image in page.get_image_info()]
        for page in document:
            assert all(page.rect.contains(pymupdf.Rect(image["bbox"])) for image in page.get_image_info())
    text = " ".join(pages)
    assert all(DISCLAIMER in page for page in pages)
    for expected in (
        *("Fusion, CT alone", "300 cases of 152 patients", "70.3 %", "0.943", "0.907 to 0.973", "not available"),
        *("malignant is never predicted", "−0.078", "−0.129 to −0.030", "< 0.001", "0.012", "DeLong", "Brier score"),
        *("Differences are paired.", "Shaded: 95 %."),
    ):
        assert expected in text
    assert len(pictures) == 4
    for image in pictures:  # two stand side by side: wider ones would have small letters
        assert image["width"] / image["height"] == pytest.approx(4.6 / 4.3, rel=0.01)


def test_the_page_is_self_contained_and_says_the_same(content):
    charts = classification_charts(content)
    data = classification_page(content, charts)
    page = Reader(data)
    assert "script" not in page.tags and page.tags.count("img") == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert b"http://" not in data and b"https://" not in data
    for expected in ("0.907 to 0.973", "malignant is never predicted", "−0.078", "< 0.001", "0.012", DISCLAIMER):
        assert expected in page.text


def test_without_comparisons_there_is_no_table_of_them(content):
    alone = replace(content, comparisons=())
    assert "Comparisons" in Reader(classification_page(content, ())).text
    assert "Comparisons" not in Reader(classification_page(alone, ())).text


def test_hostile_names_are_printed_and_not_followed(content):
    name = f"{HOSTILE} $\\frac{{1}}{{2}}$ " + "x" * 90
    row = replace(content.measures[0], model=name, of=name, note=name)
    bad = replace(
        content,
        name=name,
        measures=(row,),
        prevalences=((name, 1.0),),
        panels=(Panel("roc", name, (replace(CURVE, name=name),), name),),
        confusions=(Confusion(name, (name, "b"), ((1, 0), (0, 0))),),
        methods=(name,),
    )
    charts = classification_charts(bad)
    page = Reader(classification_page(bad, charts))
    assert "script" not in page.tags and "<script>alert('x')</script>" in page.text
    with pymupdf.open(stream=classification_pdf(bad, charts)) as document:
        for sheet in document:
            assert "\u202e" not in sheet.get_text()
            for x0, _, x1, *_ in sheet.get_text("words"):
                assert x0 >= 42 and x1 <= sheet.rect.width - 41


def test_the_same_content_gives_the_same_bytes(content):
    first, second = classification_charts(content), classification_charts(content)
    assert first == second
    assert classification_pdf(content, first) == classification_pdf(content, second)
    assert classification_page(content, first) == classification_page(content, second)
