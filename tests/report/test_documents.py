"""The PDF, the web pages and the transform, read back."""

import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pymupdf
import pytest

from pipeline.cases import Fault, Record
from pipeline.report import Reportd, case_content, case_page, case_pdf, cohort_page
from pipeline.report.cohort import safe_link
from pipeline.words import DISCLAIMER

HOSTILE = "<script>alert('x')</script> & =cmd() ../../ \u202e"


class Reader(HTMLParser):
    """Collects tags, links and text; a tag that is closed in the wrong order is an error."""

    VOID = frozenset({"meta", "img", "br", "input", "link"})

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.links, self.words = [], [], [], []
        self.feed(page.decode("utf-8"))
        self.close()
        assert self.open == []

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "poster", "srcset")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def pdf_pages(data):
    with pymupdf.open(stream=data) as document:
        return [" ".join(page.get_text().split()) for page in document]


def test_pdf_says_what_the_case_says(case):
    pages = pdf_pages(case_pdf(case_content(case, modalities={"ct": "CT", "mr": "MR"})))
    # Summary, before, after, prepared images, provenance.
    assert len(pages) == 5
    for number, text in enumerate(pages, start=1):
        assert DISCLAIMER in text
        assert f"Page {number} of 5" in text
        assert "CASE-1" in text
    for expected in ("Done", "Two starts agree.", "0.4123 mm", "9.03°", "2211 mL", "-41 HU", "not available"):
        assert expected in pages[0]
    assert "2.00 × 1.50 × 3.00" in pages[0]
    assert "ab12cd34ef56" in pages[4]
    assert "14.87 s" in pages[4]
    assert "0.25.4" in pages[4]


def test_pdf_pictures_lie_within_the_page(case):
    with pymupdf.open(stream=case_pdf(case_content(case))) as document:
        found = 0
        for page in document:
            for image in page.get_image_info():
                found += 1
                assert page.rect.contains(pymupdf.Rect(image["bbox"]))
    assert found == 4


def test_nothing_runs_out_of_its_column(case):
    """Long words and long texts wrap: every word lies between the margins of its page."""
    fault = Fault("E_REGISTER", "x" * 300, "Do " + "y" * 200)
    case["case_id"] = "CASE-" + "z" * 120
    case["records"].append(Record("CASE-1", "s" * 60, "", "failed", error=fault, flags=("N_" + "w" * 200,)))
    with pymupdf.open(stream=case_pdf(case_content(case))) as document:
        for page in document:
            for x0, y0, x1, y1, *_ in page.get_text("words"):
                assert x0 >= 42 and x1 <= page.rect.width - 42 + 0.5
                assert y0 >= 20 and y1 <= page.rect.height - 20


def test_failed_and_quarantined_pdf(quarantined):
    pages = pdf_pages(case_pdf(case_content(quarantined)))
    assert len(pages) == 1
    for expected in (
        "Quarantined in the ingest stage",
        "3 of 67 slices are missing.",
        "Code E_GAP",
        "Export the missing",
    ):
        assert expected in pages[0]
    assert "There are no alignment pictures: this case has no CT image." in pages[0]


def test_page_is_self_contained(case):
    data = case_page(case_content(case))
    page = Reader(data)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert b"http://" not in data and b"https://" not in data
    for expected in ("Done", "0.4123 mm", "9.03°", "2211 mL", "-41 HU", "not available", "ab12cd34ef56", DISCLAIMER):
        assert expected in page.text


def test_quarantined_page(quarantined):
    page = Reader(case_page(case_content(quarantined)))
    assert "Quarantined in the ingest stage" in page.text
    assert "img" not in page.tags


def test_hostile_text_is_printed_and_not_followed(case):
    fault = Fault("E_REGISTER", HOSTILE, HOSTILE)
    case["case_id"] = HOSTILE
    case["measures"] = {HOSTILE: HOSTILE, "markup": "<b>bold</b> &amp; <a href='x'>"}
    case["mr_quality"] = {"verdict": "warn", "reason": HOSTILE}
    case["records"][1] = replace(
        case["records"][1], status="failed", error=fault, flags=(HOSTILE,), versions={HOSTILE: HOSTILE}
    )
    content = case_content(case)
    shown = "<script>alert('x')</script> & =cmd() ../../"
    page = Reader(case_page(content))
    assert "script" not in page.tags and "b" not in page.tags and "a" not in page.tags
    assert page.text.count(shown) >= 6
    assert "<b>bold</b> &amp; <a href='x'>" in page.text
    text = " ".join(pdf_pages(case_pdf(content)))
    assert text.count("alert('x')") >= 6
    assert "<b>bold</b> &amp; <a href='x'>" in text
    assert "\u202e" not in page.text + text


def test_transform(case):
    transform = pickle.loads(pickle.dumps(Reportd("ct", ["mr"], {"ct": "CT", "mr": "MR"})))
    assert vars(transform)["moving"] == ("mr",) and vars(transform)["modalities"] == {"ct": "CT", "mr": "MR"}
    first, second = transform(case), transform(case)
    expected = {
        "report_pdf": (".pdf", b"%PDF"),
        "report_page": (".html", b"<!DOCTYPE html>"),
        "mr_before": (".png", b"\x89PNG"),
        "mr_after": (".png", b"\x89PNG"),
        "mr_thumbnail": (".png", b"\x89PNG"),
    }
    assert set(first) - set(case) == set(expected)
    for key, (suffix, magic) in expected.items():
        assert first[key].suffix == suffix
        assert first[key].data.startswith(magic)
        assert first[key].data == second[key].data
    assert first["mr_before"].data != first["mr_after"].data


def test_transform_on_a_case_without_images(quarantined):
    result = Reportd("ct", ["mr"], {})(quarantined)
    assert set(result) - set(quarantined) == {"report_pdf", "report_page"}


def test_another_process_writes_the_same_bytes(quarantined, tmp_path):
    """No hash seed, time or process enters the documents."""
    source = tmp_path / "content.pickle"
    content = case_content(quarantined)
    source.write_bytes(pickle.dumps(content))
    code = (
        "import pickle, sys, hashlib; from pipeline.report import case_page, case_pdf;"
        "c = pickle.load(open(sys.argv[1], 'rb')); print(hashlib.sha256(case_pdf(c) + case_page(c)).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(source)],
        env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == hashlib.sha256(case_pdf(content) + case_page(content)).hexdigest()


ROWS = [
    {"case_id": "A", "verdict": "done", "stages": {"ingest": "done", "register": "done"}, "page": "cases/A/report.html",
     "measures": {"mr_nmi_after": 1.1432, "shift_mm": 0}},
    {"case_id": "B", "verdict": "quarantined", "code": "E_GAP", "reason": HOSTILE, "stages": {"ingest": "quarantined"},
     "measures": {"shift_mm": None}, "page": "javascript:alert(1)"},
    {"case_id": "C", "verdict": "failed", "code": "E_GRID", "reason": "No.", "page": "../../etc/passwd"},
    {"case_id": "<b>D</b>", "verdict": "warning", "reason": "1.8 mm", "thumbnail": b"\x89PNG"},
]  # fmt: skip


def test_cohort_problems_first():
    page = Reader(cohort_page(ROWS, {"tandem": "0.1.0", "command": "tandem run <in>", "counts": {"done": 1}}))
    places = [page.text.index(word) for word in ("E_GRID", "E_GAP", "<b>D</b>", "1.143")]
    assert places == sorted(places)
    assert "b" not in page.tags and "script" not in page.tags
    assert "4 cases 1 done 1 done, with a warning 1 quarantined 1 failed" in page.text
    assert page.text.count("not run") == 5
    assert "0 mm" in page.text and page.text.count("not available") == 6
    assert "tandem run <in>" in page.text and "Counts Done 1" in page.text
    assert DISCLAIMER in page.text
    assert sorted(page.links) == ["cases/A/report.html", "data:image/png;base64,iVBORw==", "javascript%3Aalert%281%29"]


def test_empty_cohort():
    assert "No case was found." in Reader(cohort_page([], {})).text


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("cases/A 1/report.html", "cases/A%201/report.html"),
        ("https://example.org", "https%3A/example.org"),
        ("/etc/passwd", ""),
        ("..\\..\\x", ""),
        ("cases/../../x", ""),
        ("", ""),
    ],
)
def test_links_stay_below_the_page(page, link):
    assert safe_link(page) == link
