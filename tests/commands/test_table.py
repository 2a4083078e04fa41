"""Folders as people share them, made on the spot, become tables that training reads; what is amiss is named."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile
from PIL import Image

from pipeline import api
from pipeline.commands.table import Tables
from pipeline.errors import UsageError
from pipeline.learning.table import read_table, split_table
from tests.tandem_process import call

CLASSES = ["Healthy", "LungsCancer", "Pneumonia", "covid"]
COUNTS = {"train": 3, "valid": 2, "test": 1}
LAYOUT = "processed_dataset_split"
SUFFIX = {"CT": "png", "CXR": "jpg", "Cough sound": "wav"}


def write(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        soundfile.write(path, 0.1 * rng.normal(size=4000), 16_000)
    else:
        Image.fromarray(rng.integers(0, 255, (12, 9), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The layout as issue and notebooks have it: names of files are each stream's own."""
    return folders(tmp_path / "data", lambda stream, number: f"{stream[:2]}_{number}")


def folders(root: Path, name: Any) -> Path:
    number = 0
    for split, count in COUNTS.items():
        for stream, suffix in SUFFIX.items():
            for category in CLASSES:
                for at in range(count):
                    number += 1
                    write(root / split / stream / category / f"{name(stream, at)}.{suffix}", number)
    return root


def rows_of(path: Path | None) -> list[dict[str, str]]:
    assert path is not None
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def make(root: Path, **how: Any) -> Tables:
    return api.table(root, root / "cases.csv", how.pop("layout", LAYOUT), **how)


def test_cases_are_made_of_files_of_one_class_each_once(tree: Path) -> None:
    found = make(tree)
    rows, test = rows_of(found.cases), rows_of(found.test)
    assert list(rows[0]) == ["case_id", "ct", "cxr", "cough_sound", "label", "fold", "pairing"]
    assert list(test[0]) == ["case_id", "ct", "cxr", "cough_sound", "label", "pairing"]
    assert Counter((row["fold"], row["label"]) for row in rows) == {
        (fold, str(label)): count for fold, count in (("1", 3), ("0", 2)) for label in range(4)
    }
    assert found.classes == {name: label for label, name in enumerate(CLASSES)}
    assert found.counts["test"] == dict.fromkeys(CLASSES, 1) and len(test) == 4
    for row in [*rows, *test]:
        places = [Path(row[stream]).parts for stream in ("ct", "cxr", "cough_sound")]
        assert {part[2] for part in places} == {CLASSES[int(row["label"])]}
        assert {part[0] for part in places} == {{"0": "valid", "1": "train"}.get(row.get("fold", ""), "test")}
    for stream in ("ct", "cxr", "cough_sound"):
        assert len({row[stream] for row in [*rows, *test]}) == 24
    assert found.pairing == "class" and found.notes[0].startswith("N_CLASS_PAIRED: ") and found.left_out is None
    about = json.loads(found.about.read_text())
    assert about["classes"] == found.classes and about["streams"] == {
        "ct": "image",
        "cxr": "image",
        "cough_sound": "sound",
    }
    assert about["notes"] == list(found.notes) and about["folds"] == {"0": "valid", "1": "train"}


def test_training_reads_the_table_and_validates_by_valid(tree: Path) -> None:
    found = make(tree)
    parts = split_table(found.cases, ["ct", "cxr", "cough_sound"], 4)
    assert len(parts.training) == 12 and len(parts.validation) == 8
    assert {row.images["cxr"].parts[-4] for row in parts.validation} == {"valid"}
    assert {row.pairing for row in parts.training} == {"class"}
    assert found.test is not None and len(read_table(found.test, ["ct"], 4)) == 4


def test_the_seed_decides_who_meets_whom_and_nothing_else(tree: Path) -> None:
    pairs = []
    for seed in (0, 0, 1):
        pairs.append([(row["ct"], row["cxr"]) for row in rows_of(make(tree, seed=seed).cases)])
    assert pairs[0] == pairs[1] != pairs[2]
    assert {ct for ct, _ in pairs[0]} == {ct for ct, _ in pairs[2]}
    write(tree / "train" / "CT" / "covid" / "more.png", 999)  # of another class: the others stay as they are
    assert [pair for pair in pairs[0] if "covid" not in pair[0]] == [
        (row["ct"], row["cxr"]) for row in rows_of(make(tree).cases) if "covid" not in row["ct"]
    ]


def test_files_of_one_name_are_a_case(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", lambda stream, number: f"case_{number:03d}")
    (root / "train" / "CT" / "covid" / "case_001.png").unlink()
    found = make(root)
    rows = rows_of(found.cases)
    assert found.pairing == "stem" and len(rows) == 20
    for row in rows:
        assert len({Path(row[stream]).stem for stream in ("ct", "cxr", "cough_sound") if row[stream]}) == 1
    assert [row["label"] for row in rows if not row["ct"]] == ["3"]
    assert found.notes == (
        "N_NAME_TWICE: 3 names in two splits or classes, such as case_000",
        "N_UNEQUAL_COUNTS: 1 of 24 cases lack a stream; their cells are empty",
    )
    assert make(root, pair="class").pairing == "class"


def test_names_that_are_numbers_are_doubted_and_names_that_agree_in_part_are_asked_for(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", lambda stream, number: str(number))
    assert make(root).notes[0].startswith("N_NUMBERS_PAIRED: ")
    assert "N_NAME_TWICE" in " ".join(make(root).notes)
    for split in ("train", "valid"):
        for path in (root / split / "CT").rglob("*.png"):
            path.rename(path.with_stem(f"x{path.stem}"))
    with pytest.raises(UsageError, match=r"E_FOLDER: Expected names .* or none, got 17% shared of ct.*--pair stem"):
        make(root)
    assert len(rows_of(make(root, pair="stem").cases)) == 40


def test_unequal_counts_are_listed(tree: Path) -> None:
    for number in range(2):
        write(tree / "train" / "CXR" / "covid" / f"more_{number}.png", 500 + number)
    (tree / "valid" / "CT" / "Healthy" / "CT_1.png").unlink()
    found = make(tree)
    assert found.counts["train"]["covid"] == 3 and found.counts["valid"]["Healthy"] == 1
    left = rows_of(found.left_out)
    assert len(left) == 4 and {row["code"] for row in left} == {"N_UNEQUAL_COUNTS"}
    reasons = {row["reason"] for row in left}
    assert reasons == {"train has only 3 of ct in the class covid", "valid has only 1 of ct in the class Healthy"}
    used = {row["cxr"] for row in rows_of(found.cases)}
    assert used.isdisjoint(row["file"] for row in left)
    assert found.notes[1] == "N_UNEQUAL_COUNTS: 4 files found no partner and are in no case"


def misspell(tree: Path) -> None:
    (tree / "valid" / "CT" / "Pneumonia").rename(tree / "valid" / "CT" / "Pnuemonia")


def case_differs(tree: Path) -> None:
    (tree / "test" / "CXR" / "covid").rename(tree / "test" / "CXR" / "COVID")


def class_missing(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "CXR" / "covid")


def class_empty(tree: Path) -> None:
    for path in (tree / "train" / "CT" / "covid").iterdir():
        path.unlink()


def only_webm(tree: Path) -> None:
    for path in (tree / "train" / "Cough sound" / "covid").iterdir():
        path.rename(path.with_suffix(".webm"))


def stream_misspelt(tree: Path) -> None:
    (tree / "valid" / "CXR").rename(tree / "valid" / "CRX")


def split_misspelt(tree: Path) -> None:
    (tree / "valid").rename(tree / "vaild")


def split_twice(tree: Path) -> None:
    shutil.copytree(tree / "valid", tree / "val")


def no_train(tree: Path) -> None:
    shutil.rmtree(tree / "train")


def mixed(tree: Path) -> None:
    write(tree / "train" / "CT" / "covid" / "a.wav", 900)


def reserved(tree: Path) -> None:
    for split in COUNTS:
        (tree / split / "CT").rename(tree / split / "Label")


def one_class(tree: Path) -> None:
    for split in COUNTS:
        for stream in SUFFIX:
            for category in CLASSES[1:]:
                shutil.rmtree(tree / split / stream / category)


def damaged(tree: Path) -> None:
    for path in (tree / "train" / "CT" / "covid").iterdir():
        path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (misspell, r"class Pneumonia in valid / CT, which 8 other folders have, got none; did you mean `Pnuemonia`\?"),
        (case_differs, r"class covid in test / CXR, .* got none; did you mean `COVID`\?"),
        (class_missing, r"class covid in test / CXR, which 8 other folders have, got none\. Rename or add it"),
        (class_empty, r"Expected files that can be read in .*covid, got none\. Fill it"),
        (only_webm, r"Expected files that can be read in .*covid, got none: Co_0.webm: convert it, such as by `ffmpeg"),
        (stream_misspelt, r"stream CXR in valid, which 2 other folders have, got none; did you mean `CRX`\?"),
        (split_misspelt, r"Expected the folders train, valid and test .* got vaild; did you mean `valid`\?"),
        (split_twice, r"got valid; valid is there already"),
        (no_train, r"Expected the folders train and valid or test .* got test, valid"),
        (mixed, r"Expected files of one kind in the stream ct, got image and sound"),
        (reserved, r"Expected a folder that names a stream, starting with a letter, got Label"),
        (one_class, r"Expected folders of two classes or more, got Healthy"),
        (damaged, r"Expected files that can be read in .*covid, got none: all are damaged or equal"),
    ],
)
def test_folders_that_are_amiss_are_named(spoil: Any, message: str, tree: Path) -> None:
    spoil(tree)
    with pytest.raises(UsageError, match=f"E_FOLDER: .*{message}") as caught:
        make(tree)
    assert caught.value.remedy and not list(tree.glob("cases*"))


def test_a_file_in_two_splits_is_refused_or_left_out_of_training(tree: Path) -> None:
    source = tree / "test" / "CT" / "covid" / "CT_0.png"
    shutil.copy(source, tree / "train" / "CT" / "covid" / "renamed.png")
    equal = "train/CT/covid/renamed.png = test/CT/covid/CT_0.png"
    with pytest.raises(UsageError, match=f"E_DUPLICATE: .* got 1 .*: {equal}"):
        make(tree)
    found = make(tree, duplicates="leave_out")
    (left,) = rows_of(found.left_out)
    assert left == {
        "file": "train/CT/covid/renamed.png",
        "code": "E_DUPLICATE",
        "reason": "equal to test/CT/covid/CT_0.png, which stays",
    }
    assert found.counts["train"]["covid"] == 3


def test_equal_pixels_are_found_whatever_they_are_saved_as(tree: Path) -> None:
    values = np.asarray(Image.open(tree / "test" / "CT" / "covid" / "CT_0.png"))
    Image.fromarray(values.astype(np.uint16) * 257).save(tree / "train" / "CT" / "covid" / "deep.tif")
    samples, rate = soundfile.read(tree / "valid" / "Cough sound" / "covid" / "Co_0.wav")
    soundfile.write(tree / "train" / "Cough sound" / "Healthy" / "copy.flac", samples, rate)
    with pytest.raises(UsageError, match="E_DUPLICATE: Expected each file once, got 2 that stand"):
        make(tree)
    left = rows_of(make(tree, duplicates="leave_out").left_out)
    assert {row["file"] for row in left if row["code"] == "E_DUPLICATE"} == {
        "train/CT/covid/deep.tif",
        "train/Cough sound/Healthy/copy.flac",  # equal, and of two classes: neither is known to be right
        "valid/Cough sound/covid/Co_0.wav",
    }


def test_damaged_and_foreign_files_are_left_out_with_their_reasons(tree: Path) -> None:
    folder = tree / "train" / "CT" / "covid"
    (folder / "damaged.png").write_bytes(b"no picture")
    (folder / "scan.dcm").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(b"")
    (folder / "deeper").mkdir()
    write(folder / "deeper" / "lost.png", 801)
    write(tree / "train" / "stray.png", 800)
    (tree / "train" / "Cough sound" / "covid" / "more.webm").write_bytes(b"x")
    (tree / "train" / "CT" / "covid" / "moving.gif").write_bytes(b"x")
    found = make(tree)
    assert {row["file"]: row["code"] for row in rows_of(found.left_out)} == {
        "train/CT/covid/damaged.png": "E_PICTURE",
        "train/CT/covid/deeper": "E_FOLDER",
        "train/CT/covid/deeper/lost.png": "E_FOLDER",
        "train/CT/covid/notes.txt": "E_FOLDER",
        "train/CT/covid/scan.dcm": "E_PICTURE",
        "train/CT/covid/moving.gif": "E_PICTURE",
        "train/Cough sound/covid/more.webm": "E_SOUND",
        "train/stray.png": "E_FOLDER",
    }
    # two of them are pictures that are where nobody looks
    assert (
        found.failed == {"E_FOLDER": 2, "E_PICTURE": 3, "E_SOUND": 1}
        and found.notes[-1] == "2 files or folders left out, such as deeper"
    )
    done = call("table", tree, "--layout", LAYOUT, "--out", tree / "cases.csv")
    assert (
        done.code == 1
        and "6 files left out: E_FOLDER 2, E_PICTURE 3, E_SOUND 1; " in done.err
        and "train: 12 cases (Healthy 3," in done.out
    )


def test_what_readers_flag_is_counted_by_class(tmp_path: Path) -> None:
    """One class in 12 of 16 bits: whoever learns from it learns the bits."""
    for number, category in enumerate(["ill", "well", "ill", "well"]):
        write(tmp_path / "data" / category / f"{number}.png", number)
    dim = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    for number in (0, 2):
        Image.fromarray(dim + np.uint16(number)).save(tmp_path / "data" / "ill" / f"{number}.png")
    found = api.table(tmp_path / "data", tmp_path / "out", "classes", stream="xray")
    flags = [note for note in found.notes if note.startswith("N_DARK: ")]
    assert len(flags) == 1 and flags[0].endswith(": 2 files (ill 2)")


def test_one_folder_a_class(tmp_path: Path) -> None:
    for number, category in enumerate(["b ill", "a well", "b ill"]):
        write(tmp_path / "data" / category / f"=file {number}.png", number)
    found = api.table(tmp_path / "data", tmp_path / "out", "classes", stream="xray")
    rows = rows_of(found.cases)
    assert found.cases == tmp_path / "out" / "cases.csv" and found.test is None and found.pairing == "file"
    assert [(row["xray"], row["label"]) for row in rows] == [
        ("../data/a well/=file 1.png", "0"),
        ("../data/b ill/=file 0.png", "1"),
        ("../data/b ill/=file 2.png", "1"),
    ]
    assert "fold" not in rows[0] and len(read_table(found.cases, ["xray"], 2)) == 3
    shutil.copy(tmp_path / "data" / "b ill" / "=file 0.png", tmp_path / "data" / "b ill" / "copy.png")
    with pytest.raises(UsageError, match="E_DUPLICATE"):  # folds drawn later could part them
        api.table(tmp_path / "data", tmp_path / "out", "classes")


def test_classes_in_splits_and_volumes(tmp_path: Path) -> None:
    for number, place in enumerate(["train/a", "train/b", "val/a", "val/b", "test/a", "test/b"]):
        (tmp_path / place).mkdir(parents=True)
        values = np.random.default_rng(number).normal(size=(4, 5, 6)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / place / "v.nii.gz")
    found = make(tmp_path, layout="classes")
    assert [row["volume"] for row in rows_of(found.cases)] == [
        *("train/a/v.nii.gz", "train/b/v.nii.gz", "val/a/v.nii.gz", "val/b/v.nii.gz"),
    ]
    assert len(rows_of(found.test)) == 2 and json.loads(found.about.read_text())["streams"] == {"volume": "volume"}


def test_nifti_files_of_one_slice_are_images(tmp_path: Path) -> None:
    for number, place in enumerate(["a", "b"]):
        (tmp_path / place).mkdir()
        values = np.random.default_rng(number).normal(size=(9, 8, 1)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / place / "x.nii.gz")
    found = make(tmp_path, layout="classes", stream="xray")
    assert json.loads(found.about.read_text())["streams"] == {"xray": "image"}


def test_tables_of_an_earlier_call_do_not_stay(tree: Path) -> None:
    write(tree / "train" / "CXR" / "covid" / "more.png", 500)
    assert make(tree).left_out == tree / "cases_left_out.csv"
    (tree / "train" / "CXR" / "covid" / "more.png").unlink()
    shutil.rmtree(tree / "test")
    found = make(tree)
    assert found.left_out is None and found.test is None
    assert sorted(path.name for path in tree.glob("cases*")) == ["cases.csv", "cases.json"]


def test_what_is_asked_for_exists(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("x")
    for how, message in (
        ({"layout": "clases"}, "E_OPTION: Expected --layout .* got clases; did you mean `classes`?"),
        ({"duplicates": "drop"}, "E_OPTION: Expected --duplicates refuse, leave_out, got drop"),
        ({"pair": "steme"}, "E_OPTION: Expected --pair auto, stem, class, got steme; did you mean `stem`"),
        ({"stream": "cxr"}, "E_OPTION: Expected --stream as a name of a column"),
        ({"layout": "classes", "stream": "Cough sound"}, "E_OPTION: Expected --stream as a name of a column"),
    ):
        with pytest.raises(UsageError, match=message):
            make(tree, **how)
    with pytest.raises(UsageError, match=r"E_FOLDER: Expected a folder, got .*absent"):
        make(tree / "absent")
    for path in (tmp_path / "absent.npz", tmp_path / "text.npz"):
        with pytest.raises(UsageError, match=r"E_INPUT|E_TABLE"):
            api.table(path, tmp_path / "out", "medmnist")
