"""The PDF, the web pages and the transform, read back."""

import base64
import datetime
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pymupdf
import pytest
from PIL import Image

from pipeline.cases import Fault, Verdict
from pipeline.report import Reportd, case_content, case_page, case_pdf, cohort_page
from pipeline.report.cohort import RunPage, safe_link
from pipeline.report.content import Part
from pipeline.report.html import COHORT_LINK
from pipeline.report.sheet import DPI
from pipeline.run.stage import Stage
from pipeline.store import records as store
from pipeline.store.sections import Answer, Section, Sections, Table
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
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def pdf_pages(data):
    with pymupdf.open(stream=data) as document:
        return [" ".join(page.get_text().split()) for page in document]


TODAY = datetime.date(2026, 11, 28)


@pytest.fixture(scope="module")
def content(simulate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return case_content("CASE-1", simulate(folder), folder, TODAY)


def test_no_page_of_the_pdf_is_empty(content):
    stream = io.BytesIO()
    Image.new("RGB", (int(9 * DPI), int(5 * DPI))).save(stream, "png")  # 9 inch: an upright page has 7
    drawn = next(group for part in content.parts for group in part.groups)[0]
    wide = Part("Wide", groups=((replace(drawn, png=stream.getvalue()),),))
    with pymupdf.open(stream=case_pdf(replace(content, parts=(wide, wide, *content.parts)))) as document:
        assert [page.rect.width > page.rect.height for page in document][:4] == [False, True, True, False]
        assert all(page.get_images() or len(page.get_text()) > 250 for page in document)


def test_page_one_of_the_pdf_holds_the_answer(content):
    with pymupdf.open(stream=case_pdf(content)) as document:
        first = document[0]
        text = " ".join(first.get_text().split())
        for expected in ("CASE-1", "2026-11-28", "Done", "All stages finished.", "Tumour", "1.3 mL", "CT 900 HU"):
            assert expected in text
        assert "register: done" in text and "Edges should run on." in text and DISCLAIMER in text
        (picture,) = first.get_image_info()
        assert first.rect.contains(pymupdf.Rect(picture["bbox"])) and picture["width"] > 500


def test_pdf_says_what_the_case_says(content):
    pages = pdf_pages(case_pdf(content))
    for number, text in enumerate(pages, start=1):
        assert DISCLAIMER in text
        assert f"Page {number} of {len(pages)}" in text
        assert "CASE-1" in text
    text = " ".join(pages)
    for expected in (
        "The alignment passed.",
        "0.4123 mm",
        "at most 2 mm",
        "How far it moved.",
        "0 mm",
        "not available",
    ):
        assert expected in text
    for expected in ("2.00 × 1.50 × 3.00", "14.87 s", "0.25.4", "What the toy found", "Three bricks."):
        assert expected in text
    assert text.index("MR aligned to CT") < text.index("What the toy found") < text.index("Provenance")


def test_pdf_pictures_lie_within_the_page(content):
    with pymupdf.open(stream=case_pdf(content)) as document:
        boxes = [(page.rect, pymupdf.Rect(item["bbox"])) for page in document for item in page.get_image_info()]
    assert len(boxes) == 4  # the first page's, before, after, and the toy's
    assert all(rect.contains(box) for rect, box in boxes)


def test_nothing_runs_out_of_its_column(content):
    """Long words and long texts wrap: every word lies between the margins of its page."""
    verdict = replace(content.verdict, reasons=("x" * 300,), remedy="Do " + "y" * 200)
    stages = (("s" * 60, "failed", "failed"),)
    answers = (Answer("l" * 80, "v" * 200, "n" * 300),) * 3
    wide = Table("t", tuple("abcdefghij"), (("q" * 90,) * 10,), {"q" * 90: "h" * 120})
    parts = (replace(content.parts[0], title="w" * 200, tables=(wide,)),)
    changed = replace(content, case_id="z" * 120, verdict=verdict, stages=stages, answers=answers, parts=parts)
    with pymupdf.open(stream=case_pdf(changed)) as document:
        for page in document:
            for x0, y0, x1, y1, *_ in page.get_text("words"):
                assert x0 >= 42 and x1 <= page.rect.width - 42 + 0.5
                assert y0 >= 20 and y1 <= page.rect.height - 20


def test_what_the_first_page_has_no_room_for_is_on_the_next(content):
    many = replace(
        content,
        verdict=replace(content.verdict, reasons=tuple(f"Reason {number}." for number in range(9))),
        answers=tuple(Answer(f"Label {number}", "x") for number in range(12)),
    )
    first, second, *_ = pdf_pages(case_pdf(many))
    assert "Reason 3." in first and "Reason 4." not in first and "and 5 more on the next page" in first
    assert "Reason 8." in second and "Label 11" in second


def test_failed_and_quarantined_pdf(quarantined, tmp_path):
    pages = pdf_pages(case_pdf(case_content("CASE-2", quarantined, tmp_path, TODAY)))
    assert len(pages) == 1
    for expected in ("Quarantined in the ingest stage", "3 of 67 slices", "Code E_GAP", "Export the missing"):
        assert expected in pages[0]


def test_page_is_self_contained(content):
    data = case_page(content)
    page = Reader(data)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.links.pop(0) == COHORT_LINK == "../../../report.html"
    assert page.links and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert b"http://" not in data and b"https://" not in data
    assert len(data) < 3_000_000
    for expected in ("Done", "2026-11-28", "0.4123 mm", "at most 2 mm", "How far it moved.", "CT 900 HU", DISCLAIMER):
        assert expected in page.text
    for expected in ("What the toy found", "Three bricks.", "Before alignment", "After alignment", "Flicker"):
        assert expected in page.text
    # The first page's picture with its slices, before, after, and the toy's map.
    assert len(page.links) == 4 + len(content.first.slices)
    picture = Image.open(io.BytesIO(base64.b64decode(page.links[0].split(",")[1])))
    assert picture.size == Image.open(io.BytesIO(content.first.png)).size


def test_slices_say_where_they_lie(content):
    text = Reader(case_page(content)).text
    places = [place for place, _ in content.first.slices]
    assert len(places) == 24 and all(place in text for place in places)


def test_quarantined_page(quarantined, tmp_path):
    page = Reader(case_page(case_content("CASE-2", quarantined, tmp_path, TODAY)))
    assert "Quarantined in the ingest stage" in page.text
    assert "img" not in page.tags


def test_hostile_text_is_printed_and_not_followed(quarantined, tmp_path):
    fault = Fault("E_REGISTER", HOSTILE, HOSTILE)
    measures = {HOSTILE: HOSTILE, "markup": "<b>bold</b> &amp; <a href='x'>"}
    record = replace(
        quarantined[0], status="failed", error=fault, flags=(HOSTILE,), versions={HOSTILE: HOSTILE}, measures=measures
    )
    content = case_content(HOSTILE, [record], tmp_path, TODAY)
    table = Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), {HOSTILE: HOSTILE})
    part = replace(content.parts[0], title=HOSTILE, sentences=(HOSTILE,), tables=(table,))
    content = replace(content, answers=(Answer(HOSTILE, HOSTILE, HOSTILE),), parts=(*content.parts, part))
    shown = "<script>alert('x')</script> & =cmd() ../../"
    page = Reader(case_page(content))
    assert "script" not in page.tags and "b" not in page.tags and page.tags.count("a") == 1
    assert page.text.count(shown) >= 14
    assert "<b>bold</b> &amp; <a href='x'>" in page.text
    text = " ".join(pdf_pages(case_pdf(content)))
    assert text.count("alert('x')") >= 14
    assert "<b>bold</b> &amp; <a href='x'>" in text


def test_control_characters_of_a_stage_do_not_reach_the_page(leave, tmp_path):
    said = Sections((Section("a\u202eb", ("c\x00d",), (Table("t\u202e", ("e\u202e",), (("f\u202e",),)),)),))
    records = [leave(tmp_path, "odd", [], said, flags=("g\u202e",))]
    page = case_page(case_content("h\u202e", records, tmp_path, TODAY)).decode()
    assert "\u202e" not in page and "\x00" not in page and "a b" in page


def test_transform(records, tmp_path):
    transform = pickle.loads(pickle.dumps(Reportd(str(tmp_path))))
    case = {"case_id": "CASE-1", "records": records}
    first, second = transform(case), transform(case)
    assert {key: kind.removesuffix("?") for key, kind in transform.writes().items()} == {
        "report_pdf": "document",
        "report_page": "document",
        "pictures": "documents",
    }
    assert first["report_pdf"].suffix == ".pdf" and first["report_pdf"].data.startswith(b"%PDF")
    assert first["report_page"].suffix == ".html" and first["report_page"].data.startswith(b"<!DOCTYPE html>")
    assert list(first["pictures"]) == ["mr_before", "mr_after", "toy_map", "thumbnail"]
    for picture in first["pictures"].values():
        assert picture.suffix == ".png" and picture.data.startswith(b"\x89PNG")
    assert first["pictures"]["mr_before"].data != first["pictures"]["mr_after"].data
    assert all(first[key] == second[key] for key in ("report_pdf", "report_page", "pictures"))


def test_transform_on_a_case_without_images(quarantined, tmp_path):
    result = Reportd(tmp_path)({"case_id": "CASE-2", "records": quarantined})
    assert set(result) == {"case_id", "records", "report_pdf", "report_page"}


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(quarantined, tmp_path):
    """No hash seed, time or process enters the documents."""
    source = tmp_path / "content.pickle"
    content = case_content("CASE-2", quarantined, tmp_path, TODAY)
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


def test_a_report_is_made_anew_when_ingest_finds_something_else(quarantined, tmp_path):
    for record in quarantined:
        store.write(record, store.case_folder(tmp_path, record.case_id) / record.stage)
    head = "series,case_id,modality,role,verdict,code,reason\n"
    reads = {"records": "records", "found": "rows?"}
    stage = Stage("report", Reportd(tmp_path), reads, output_dir=tmp_path)
    reused = []
    for rows in ("", "s-1,CASE-2,CT,,set aside,E_GAP,\n", "s-1,CASE-2,CT,,set aside,E_GAP,\ns-2,CASE-9,MR,,,,\n"):
        (tmp_path / "series.csv").write_text(head + rows)
        (found,) = stage.run(store.FindCases(tmp_path, reads, all_cases=True)())
        reused.append(found.reused)
        page = next(tmp_path / item.path for item in found.artifacts if item.key == "report_page")
        assert ("s-1" in page.read_text()) is bool(rows)
    assert reused == [False, False, True]  # what is another case's does not count


def test_a_run_has_a_page_of_all_its_cases(records, quarantined, tmp_path):
    records[1] = replace(records[1], verdict=Verdict("warn", ("1.8 mm apart.",)), answers={"Class": "kind_b"})
    records[2] = replace(records[2], answers={"Class": "kind_a"})
    for record in (*records, *quarantined):
        store.write(record, store.case_folder(tmp_path, record.case_id) / record.stage)
    stage = Stage("report", Reportd(tmp_path), {"records": "records"}, output_dir=tmp_path)
    found = stage.run(store.FindCases(tmp_path, {"records": "records"}, all_cases=True)())
    assert [record.status for record in found] == ["done", "done"]
    assert "thumbnail" in {item.key for item in found[0].artifacts}
    RunPage()(tmp_path)
    page = Reader((tmp_path / "report.html").read_bytes())
    assert page.text.index("CASE-2") < page.text.index("CASE-1")
    for expected in (
        "E_GAP",
        "1.8 mm apart.",
        "kind_b",
        "kind_a",
        "Class (register)",
        "register warning",
        "toybox done",
        "ingest quarantined",
    ):
        assert expected in page.text
    links = [link for link in page.links if not link.startswith("data:")]
    assert all((tmp_path / link).is_file() for link in links) and len(links) == 2
    back = (tmp_path / links[0]).parent / COHORT_LINK
    assert back.resolve() == (tmp_path / "report.html").resolve()


ROWS = [
    {"case_id": "A", "verdict": "done", "stages": [("ingest", "done", "done"), ("register", "done", "done")],
     "page": "cases/A/report.html", "answers": {"Class": "kind_b, probability 0.87"}},
    {"case_id": "B", "verdict": "quarantined", "code": "E_GAP", "reason": HOSTILE,
     "stages": [("ingest", "quarantined", "quarantined")], "page": "javascript:alert(1)"},
    {"case_id": "C", "verdict": "failed", "code": "E_GRID", "reason": "No.", "remedy": "Export again.",
     "page": "../../etc/passwd"},
    {"case_id": "<b>D</b>", "verdict": "warning", "reason": "1.8 mm", "thumbnail": b"\x89PNG"},
]  # fmt: skip
DATE = "2026-11-28"


def test_cohort_problems_first():
    run = {"tandem": "0.1.0", "command": "tandem run <in>", "counts": {"done": 1}}
    data = cohort_page(ROWS, run, DATE)
    page = Reader(data)
    places = [page.text.index(word) for word in ("E_GRID", "E_GAP", "<b>D</b>", "kind_b, probability 0.87")]
    assert places == sorted(places)
    assert "E_GRID No. What to do: Export again." in page.text and page.text.count("What to do") == 1
    assert "b" not in page.tags and page.tags.count("script") == 1
    assert "4 cases 1 done 1 done, with a warning 1 quarantined 1 failed" in page.text
    assert "Case Verdict Class Stages Reason" in page.text and DATE in page.text
    assert "ingest done register done" in page.text
    assert "tandem run <in>" in page.text and "Counts Done 1" in page.text
    assert DISCLAIMER in page.text
    assert sorted(page.links) == ["cases/A/report.html", "data:image/png;base64,iVBORw==", "javascript%3Aalert%281%29"]


def test_the_only_script_is_the_one_whose_hash_the_page_allows():
    page = cohort_page(ROWS, {}, DATE).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page
    assert "http" not in page.split("<body>")[1]


def test_many_answers_share_a_column():
    rows = [{"case_id": "A", "verdict": "done", "answers": {f"Label {number}": f"v{number}" for number in range(5)}}]
    page = Reader(cohort_page(rows, {}, DATE))
    assert "Case Verdict Answers Stages Reason" in page.text and "Label 4: v4" in page.text


def test_empty_cohort():
    assert "No case was found." in Reader(cohort_page([], {}, DATE)).text


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
