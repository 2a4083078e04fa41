"""The report of a calibration, read back."""

import io
from dataclasses import replace

import numpy as np
import pymupdf
import pytest
from PIL import Image

from pipeline.probabilities import ReliabilityBin
from pipeline.report.calibration import CalibrationContent, Figure, MethodRow, calibration_pdf
from pipeline.report.curves import Diagram, reliability_figure
from pipeline.words import DISCLAIMER


def diagram(shift, title="After: vector"):
    bins = [
        ReliabilityBin(
            low / 10, (low + 1) / 10, 10 * low, low / 10 + 0.05, frequency, frequency - 0.04, frequency + 0.03
        )
        for low in range(3, 9)
        for frequency in [low / 10 + 0.05 - shift]
    ]
    return Diagram(title, tuple(bins), shift)


def row(name, excess, **more):
    figures = {
        "nll": Figure(0.7123, 0.6011, 0.8022),
        "brier": Figure(0.4, 0.3, 0.5),
        "ece": Figure(0.0512, 0.0031, 0.0922, 0.0213, 0.0744),
        "ece_debiased": Figure(-0.0011, -0.02, 0.018),
    }
    return MethodRow(name, figures, excess, 0.0042, **more)


@pytest.fixture
def content():
    failed = MethodRow("matrix", {}, fault="E_CAL_NO_FIT: Expected classes that overlap.")
    return CalibrationContent(
        recommended="temperature",
        used="temperature",
        reason="Vector has the lowest held-out NLL (0.7101); temperature is the simplest method close to it.",
        notes=(),
        methods=(row("none", 0.1234), row("temperature", 0.0021), row("vector", 0.0), failed),
        diagrams=(diagram(0.2, "Before: the model's own probabilities"), diagram(0.01)),
        provenance=(("Data", "L.npy <b>&amp;"), ("Date", "2026-01-02")),
        tandem="9.8.7",
    )


def pages(data):
    with pymupdf.open(stream=data) as document:
        return [" ".join(page.get_text().split()) for page in document]


def test_pages_say_what_the_content_says(content):
    first, second = pages(calibration_pdf(content))
    for text, number in ((first, 1), (second, 2)):
        assert DISCLAIMER in text and f"Page {number} of 2" in text and "Tandem 9.8.7" in text
    for expected in (
        "Take temperature", content.reason, "temperature (recommended, saved)", "0.712 (0.601–0.802)", "0.123 ± 0.004",
        "best", "0.021 to 0.074", "-0.001 (-0.020–0.018)", "not fitted.", "E_CAL_NO_FIT",
    ):  # fmt: skip
        assert expected in first, expected
    assert "Reliability before and after" in second and "L.npy <b>&amp;" in second and "2026-01-02" in second


def test_another_method_than_the_recommended_one_is_said(content):
    first = pages(calibration_pdf(replace(content, used="vector", notes=("Too few cases: 12.",))))[0]
    assert "Vector calibration" in first and "Take temperature" in first
    assert "The saved calibration is vector, as asked for." in first and "Too few cases: 12." in first
    assert "temperature (recommended)" in first and "vector (saved)" in first
    none = pages(calibration_pdf(replace(content, recommended="none")))[0]
    assert "Take the model's own probabilities" in none


def test_infinite_and_missing_figures(content):
    bad = row("isotonic", float("inf"))
    bad.figures["nll"] = Figure(float("inf"), 0.5, float("inf"))
    bad.figures["brier"] = Figure(0.1, float("nan"), 0.3)
    first = pages(calibration_pdf(replace(content, methods=(bad,))))[0]
    assert "infinite (0.500–infinite)" in first and "0.100 (n/a–0.300)" in first


def test_the_same_bytes_again_and_all_within_the_page(content):
    data = calibration_pdf(content)
    assert data == calibration_pdf(content)
    with pymupdf.open(stream=data) as document:
        (info,) = document[1].get_image_info()
        assert document[1].rect.contains(pymupdf.Rect(info["bbox"]))
        for page in document:
            for x0, y0, x1, y1, *_ in page.get_text("words"):
                assert x0 >= 42 and x1 <= page.rect.width - 42 + 0.5 and y0 >= 20 and y1 <= page.rect.height - 20


def test_the_diagram_shows_the_gap():
    """Points above the dashed line raise the coloured pixels, points below it lower them; the other panel stays."""

    def middle(shift):
        pixels = np.asarray(Image.open(io.BytesIO(reliability_figure([diagram(0.0), diagram(shift)])))).astype(int)
        upper = pixels[100:500]
        dark = (upper[..., 2] - upper[..., 0] > 60) & (upper[..., 0] < 60)
        half = dark.shape[1] // 2
        return dark[:, :half], np.argwhere(dark[:, half:])[:, 0].mean()

    left_low, low = middle(0.15)
    left_high, high = middle(-0.08)
    assert (left_low == left_high).all() and left_low.sum() > 200
    assert low - high > 40
