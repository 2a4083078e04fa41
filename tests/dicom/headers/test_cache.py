from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipeline.dicom.headers.cache
import pipeline.dicom.headers.scan
from pipeline.cases import Fault
from pipeline.dicom.headers.cache import HeaderCache, _signed, stamp_of
from pipeline.dicom.headers.packed import pack, unpack
from pipeline.dicom.headers.scan import Scan, read_task, scan
from pipeline.dicom.ingest import FindSeries
from pipeline.dicom.pixels.pixels import stored_values
from pipeline.dicom.series.gate import candidates
from pipeline.errors import CaseError
from pipeline.run.stage import Stage
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import every_volume
from pipeline.store.files import walk
from tests.phantoms.enhanced import Layout
from tests.phantoms.phantom import position_phantom
from tests.phantoms.planted import enhanced


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now are kept, too."""
    monkeypatch.setattr(pipeline.dicom.headers.cache, "SETTLED_S", 0.0)


class Reader:
    """Reads in this process, and remembers what; a file of `failing` gives that."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.failing: dict[str, Any] = {}

    def __call__(self, paths: list[Path], tags: tuple[str, ...], _readers: int = 0) -> Iterator[Any]:
        for path in paths:
            self.read.append(path.name)
            if isinstance(self.failing.get(path.name), KeyboardInterrupt):
                raise self.failing[path.name]
            try:
                yield self.failing.get(path.name) or read_task((path, tags))
            except Exception as error:  # noqa: BLE001 - what a child would answer
                yield error

    def seen(self) -> list[str]:
        """What was read since the last time."""
        found, self.read = sorted(self.read), []
        return found


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    found = Reader()
    monkeypatch.setattr(pipeline.dicom.headers.scan, "_read_all", found)
    monkeypatch.setattr(pipeline.dicom.headers.scan, "_CHUNK", 4)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two series, an enhanced file, and one of each kind of trouble: 12 + 1 + 4 files."""
    root, small = tmp_path / "tree", position_phantom(shape=(12, 10, 6))
    write_series(small, root / "a", SeriesHeader(patient_id="A"))
    write_series(small, root / "b", SeriesHeader(patient_id="B", modality="MR", first_instance=11))
    enhanced(Layout())(root / "c")
    cut = sorted((root / "b").iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-9])
    (root / "b" / "copy").write_bytes(sorted((root / "b").iterdir())[0].read_bytes())
    (root / "empty.dcm").write_bytes(b"")
    (root / "note.txt").write_text("no DICOM at all, but long enough to be looked at" * 9)
    (root / os.fsdecode(b"M\xfcller")).write_bytes(b"\x08\0" + bytes(300))
    return root


def names(tree: Path) -> list[str]:
    return sorted(path.name for path in tree.rglob("*") if path.is_file())


def test_what_is_kept_is_what_was_read(tree: Path, tmp_path: Path, reader: Reader) -> None:
    bare, cache = scan(tree), tmp_path / "cache"
    assert reader.seen() == names(tree)
    assert scan(tree, cache=cache) == bare and reader.seen() == names(tree)
    assert scan(tree, cache=cache) == bare and reader.seen() == []
    assert len(bare.series) == 3 and {item.fault.code for item in bare.rejected if item.fault} == {"E_HEADER"}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


def test_plain_values_give_every_value_back(tree: Path) -> None:
    """Also frames with tags that other images lack; and -0.0 beside 0.0, which is equal and not the same."""
    paths = [path for path in sorted(tree.rglob("*")) if path.is_file() and path.parent != tree]
    found = [read_task((path, ("PatientName",))) for path in paths]
    (first,) = found[0].instances
    places = ((0.0, -0.0, 1.5), (-0.0, 0.0, 1.5), (0.1 + 0.2, 1e-300, -1e300))
    found[:3] = [replace(found[k], instances=(replace(first, path=paths[k], position=places[k]),)) for k in range(3)]
    back = list(unpack(json.loads(json.dumps(pack(found))), paths))
    assert back == found and {len(header.instances) for header in back} >= {1, 20}
    assert [repr(header.instances[0].position) for header in back[:3]] == [repr(place) for place in places]
    two = list(unpack(pack([found[0], found[1]]), paths[:2]))
    assert [str(header.instances[0].position) for header in two] == [str(place) for place in places[:2]]
    assert back[5].instances[0].orientation is back[4].instances[0].orientation, "in memory once"


def grow(tree: Path) -> list[str]:
    new = write_series(
        position_phantom(shape=(12, 10, 3)), tree / "new", SeriesHeader(patient_id="C", first_instance=21)
    )
    return sorted(path.name for path in new)


def change(tree: Path) -> list[str]:
    path = sorted((tree / "a").iterdir())[0]
    path.write_bytes(path.read_bytes() + b"\0\0")
    return [path.name]


def touch(tree: Path) -> list[str]:
    """Other content of the same size, and the time of the last change set back."""
    path = sorted((tree / "a").iterdir())[0]
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"Simulated^One", b"Another^Woman"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_size == before.st_size
    return [path.name]


def lose(tree: Path) -> list[str]:
    shutil.rmtree(tree / "a")
    return []


def move(tree: Path) -> list[str]:
    (tree / "a").rename(tree / "z")
    return sorted(path.name for path in (tree / "z").iterdir())


@pytest.mark.parametrize("happens", [grow, change, touch, lose, move])
def test_a_tree_that_has_changed(
    tree: Path, tmp_path: Path, reader: Reader, happens: Callable[[Path], list[str]]
) -> None:
    """Only what is new or has changed is read, and the outcome is that of reading all."""
    cache = tmp_path / "cache"
    scan(tree, cache=cache)
    reader.seen()
    expected = happens(tree)
    found = scan(tree, cache=cache)
    assert reader.seen() == expected
    assert found == scan(tree)
    reader.seen()
    assert scan(tree, cache=cache) == found and reader.seen() == []
    kept = {name for line in cache.read_text().splitlines()[1:] for name, _ in json.loads(line.split(" ", 1)[1])["of"]}
    assert kept == {str(path) for path in tree.rglob("*") if path.is_file()}, "what is gone is dropped"


def flip(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda _: b"",
        lambda data: b"x" + data,
        lambda data: data.replace(b"\n", b"\n\0\n", 2),
        lambda _: bytes(9),
        lambda data: data.splitlines(keepends=True)[0] + _signed(b'{"of":[["x",[1,2,3]]],"headers":{}}'),
    ],
    ids=["a bit", "emptied", "a letter more", "a line more", "zeros", "of another form"],
)
def test_a_damaged_cache_is_thrown_away_and_said(
    tree: Path, tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    cache = tmp_path / "cache"
    found = scan(tree, cache=cache)
    reader.seen()
    cache.write_bytes(damage(cache.read_bytes()))
    assert scan(tree, cache=cache) == found and reader.seen() == names(tree)
    assert f"The private cache of headers {cache} was thrown away: it was damaged." in capsys.readouterr().err
    assert scan(tree, cache=cache) == found and reader.seen() == []


def test_a_run_that_was_killed_has_kept_what_it_had_read(
    tree: Path, tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the third chunk of four files; and in the middle of a line."""
    cache, whole = tmp_path / "cache", scan(tree)
    files = list(walk(tree))
    reader.failing = {files[13].name: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        scan(tree, cache=cache)
    reader.failing, _ = {}, reader.seen()
    assert scan(tree, cache=cache) == whole
    assert reader.seen() == sorted(path.name for path in files[12:])
    cache.write_bytes(cache.read_bytes()[:-20])
    assert scan(tree, cache=cache) == whole
    assert 0 < len(reader.seen()) <= 4 and capsys.readouterr().err == ""


@pytest.mark.parametrize("what", ["code", "tags", "root", "working folder"])
def test_another_version_or_tree_reads_anew(
    tree: Path, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A relative path is another folder in another working folder, where a file of the same stamp may lie."""
    monkeypatch.chdir(tmp_path)
    cache, root = tmp_path / "cache", Path("tree")
    scan(root, cache=cache)
    reader.seen()
    tags: tuple[str, ...] = ()
    if what == "code":
        monkeypatch.setattr(pipeline.dicom.headers.cache, "code_version", lambda: "another")
    elif what == "tags":
        tags = ("StudyDescription",)
    elif what == "root":
        root = tree
    else:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "tree").symlink_to(tree)
        monkeypatch.chdir(tmp_path / "other")
    found = scan(root, tags, cache=cache)
    assert reader.seen() == names(tree) and found == scan(root, tags)
    reader.seen()
    assert scan(root, tags, cache=cache) == found and reader.seen() == []


def test_what_is_no_property_of_a_file_is_not_kept(tree: Path, tmp_path: Path, reader: Reader) -> None:
    first, second = sorted((tree / "a").iterdir())[:2]
    reader.failing = {first.name: PermissionError(13, "Permission denied"), second.name: Fault("E_LIMIT", "Too slow.")}
    found = scan(tree, cache=tmp_path / "cache")
    assert [item.path for item in found.unreadable] == [first]
    reader.failing, _ = {}, reader.seen()
    again = scan(tree, cache=tmp_path / "cache")
    assert reader.seen() == [first.name, second.name] and again == scan(tree)


def test_a_file_that_has_changed_just_now_is_read_again(
    tree: Path, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one step of the disk's clock it may change once more, and look the same."""
    monkeypatch.setattr(pipeline.dicom.headers.cache, "SETTLED_S", 3600.0)
    for _ in range(2):
        scan(tree, cache=tmp_path / "cache")
        assert reader.seen() == names(tree)
    monkeypatch.setattr(time, "time", lambda: tree.stat().st_ctime + 2 * 3600)
    assert stamp_of(next((tree / "a").iterdir())) is not None


def test_a_cache_that_cannot_be_written_stops_nothing(
    tree: Path, tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder for it; a full disk; and one that is taken away while files are read."""
    (tmp_path / "file").write_text("")
    assert scan(tree, cache=tmp_path / "file" / "cache") == scan(tree)
    assert capsys.readouterr().err.count("The private cache of headers cannot be written, so none is kept") == 1
    cache = HeaderCache(tmp_path / "cache", tree)
    paths = sorted((tree / "a").iterdir())
    cache.known(paths)
    (tmp_path / "cache").unlink()
    for _ in range(2):
        cache.keep(paths, pack([read_task((path, ())) for path in paths]))
    assert capsys.readouterr().err.count("cannot be written") == 1 and not (tmp_path / "cache").exists()


def outcome(tree: Path, out: Path, home: Path) -> tuple[Any, ...]:
    """All that ingest makes of a tree: cases, tables, counts."""
    cases = FindSeries(tree, out, every_volume())()
    private = {path.name: path.read_bytes() for path in home.rglob("*.csv")}
    return cases, (out / "series.csv").read_bytes(), (out / "scan.json").read_bytes(), private


def test_ingest_is_the_same_with_and_without_the_cache(
    tree: Path, tmp_path: Path, tandem_home: Path, reader: Reader
) -> None:
    """Cold, warm, half cold; the cache lies beside the private tables and nothing of it in the run folder."""
    cold = outcome(tree, tmp_path / "out", tandem_home)
    assert len(cold[0]) == 3
    (cache,) = (tandem_home / "links").rglob("headers.jsonl")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600 and stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
    reader.seen()
    assert outcome(tree, tmp_path / "out", tandem_home) == cold and reader.seen() == []
    lines = cache.read_bytes().splitlines(keepends=True)
    cache.write_bytes(b"".join([lines[0], *lines[1::2]]))
    assert outcome(tree, tmp_path / "out", tandem_home) == cold and 0 < len(reader.seen()) < len(names(tree))
    (row,) = [row for row in csv.DictReader(cold[3]["files.csv"].decode().splitlines()) if row["path"].endswith(".dcm")]
    assert row["code"] == "E_HEADER"


def test_children_read_and_a_second_scan_starts_none(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: Scan = scan(tree, cache=tmp_path / "cache", readers=2)
    monkeypatch.setattr(pipeline.dicom.headers.scan, "Sandbox", None)
    assert scan(tree, cache=tmp_path / "cache") == first


def test_pixels_are_not_put_where_another_file_lay(tree: Path, tmp_path: Path, reader: Reader) -> None:
    """On a disk without a time of its own for changes, other content can look the same: it is seen when it is read."""
    shutil.rmtree(tree / "c")
    cases = FindSeries(tree, tmp_path / "out", every_volume())()
    (whole,) = [case["image"] for case in cases if case["image"].modality == "CT"]
    assert len(list(stored_values(whole.instances))) == 6
    path = whole.instances[2].path
    before = path.read_bytes()
    path.write_bytes(before[:-2] + b"\1\1")
    assert len(list(stored_values(whole.instances))) == 6, "the pixels may change: their hash is in the resume key"
    path.write_bytes(before.replace(b"Simulated^One", b"Another^Woman"))
    with pytest.raises(CaseError, match="E_CHANGED: A file of the series is not the one whose header was read"):
        list(stored_values(whole.instances))


def test_the_content_is_in_the_resume_key_though_a_file_looks_unchanged(
    tree: Path, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size and time of change, as a disk may have it that knows no other time."""
    monkeypatch.setattr(pipeline.dicom.headers.cache, "stamp_of", lambda path: (path.stat().st_size, 0, 0))
    keys = []
    for last in (b"\1\1", b"\2\2"):
        path = sorted((tree / "a").iterdir())[0]
        path.write_bytes(path.read_bytes()[:-2] + last)
        cases = FindSeries(tree, tmp_path / "out", every_volume())()
        stage = Stage("ingest", _same, {"image": "series"}, {}, tmp_path / "out")
        keys.append({case["case_id"]: stage.run_case(case).key for case in cases if case["image"].fault is None})
    assert reader.seen() == names(tree), "read once"
    assert sorted(keys[0]) == sorted(keys[1]) and sum(keys[0][case] != keys[1][case] for case in keys[0]) == 1


def _same(case: dict[str, Any]) -> dict[str, Any]:
    return case


def test_a_tree_that_changes_while_it_is_read(tree: Path, tmp_path: Path, reader: Reader) -> None:
    """Between the walk and the reading a file goes, another is cut; then a copy that has to be compared goes."""
    gone, cut = sorted((tree / "a").iterdir())[:2]

    def reading(paths: list[Path], tags: tuple[str, ...], readers: int = 0) -> Iterator[Any]:
        gone.unlink()
        cut.write_bytes(cut.read_bytes()[:-50])
        yield from reader(paths, tags, readers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.dicom.headers.scan, "_read_all", reading)
        found = scan(tree, cache=tmp_path / "cache")
    assert [(item.path, item.fault.code) for item in found.unreadable if item.fault] == [(gone, "E_UNREADABLE")]
    (series,) = [item for item in found.series if item.patient_id == "A"]
    assert len(series.instances) == 4
    assert {item.path: item.fault.code for item in series.rejected if item.fault} == {
        cut: "E_PIXEL_LENGTH",
        gone: "E_UNREADABLE",
    }
    reader.seen()
    assert [len(item.instances) for item in scan(tree, cache=tmp_path / "cache").series if item == series] == []
    assert reader.seen() == [cut.name], "it is not what it was when the tree was walked"
    (copied,) = [item for item in found.series if item.patient_id == "B"]
    (tree / "b" / "copy").unlink()
    fault = candidates([copied])[0].fault
    assert fault is not None and fault.code == "E_UNREADABLE"


def test_a_folder_that_goes_while_the_tree_is_walked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def going(path: Any) -> Any:
        found = listed(path)
        if Path(path) == tree / "c":
            (tree / "c").rename(tree.parent / "gone")
        return found

    monkeypatch.setattr(os, "scandir", going)
    assert tree / "c" in walk(tree)


def test_a_file_that_goes_after_the_tree_was_read_is_a_case_that_failed(
    tree: Path, tmp_path: Path, reader: Reader
) -> None:
    (case, *_) = [case for case in FindSeries(tree, tmp_path / "out", every_volume())() if case["fault"] is None]
    case["image"].instances[0].path.unlink()
    record = Stage("ingest", _same, {"image": "series"}, {}, tmp_path / "out").run_case(case)
    assert record.status == "failed" and record.error is not None and record.error.code == "E_UNREADABLE"
