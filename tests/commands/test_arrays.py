"""Arrays and names from files."""

import numpy as np
import pytest

from pipeline.commands.arrays import read_array, read_names
from pipeline.errors import UsageError


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_numpy_files_come_back_as_they_are(tmp_path):
    array = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", anything=array)
    for name in ("a.npy", "a.npz"):
        found = read_array(tmp_path / name)
        assert found.dtype == np.float16 and (found == array).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4.5\n", [[1, 2], [3, 4.5]]),
        ("a,b\n1,2\n3,4.5\n", [[1, 2], [3, 4.5]]),
        ("\ufeff1\r\n2\r\n\r\n-3e2\r\n", [1, 2, -300]),
        ("label\n0\n1\n", [0, 1]),
        ("a;b\n1;2\n3;4.5\n", [[1, 2], [3, 4.5]]),
        ("a\tb\n1\t2\n", [[1, 2]]),
    ],
)
def test_csv(tmp_path, text, expected):
    found = read_array(written(tmp_path / "a.csv", text))
    assert found.dtype == np.float64 and found.tolist() == expected


def test_csv_keeps_nan_for_the_reader_to_refuse(tmp_path):
    assert np.isnan(read_array(written(tmp_path / "a.csv", "1,nan\n2,3\n"))[0, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got none"),
        ("a,b\n", "row of names only"),
        ("1,2\n3\n", "2 columns in row 2 of a.csv, got 1"),
        ("a,b\n1,2\n3,x\n", "numbers in row 3 of a.csv, got 'x'"),
        ("1,2\n3,\n", "numbers in row 2 of a.csv, got ''"),
        ("a;b\n1;2,5\n", "numbers in row 2 of a.csv, got '2,5'"),
    ],
)
def test_bad_csv(tmp_path, text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_array(written(tmp_path / "a.csv", text))
    assert caught.value.code == "E_TABLE"


def test_bad_files(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "texts.npy", np.array(["a", "b"]))
    whole = tmp_path / "whole.npy"
    np.save(whole, np.ones(1000))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    written(tmp_path / "a.txt", "1,2")
    for name in (
        "two.npz",
        "objects.npy",
        "texts.npy",
        "cut.npy",
        "cut.npz",
        "bytes.csv",
        "a.txt",
    ):
        with pytest.raises(UsageError) as caught:
            read_array(tmp_path / name)
        assert caught.value.code == "E_TABLE", name
    for name in ("none.npy", "none.csv"):
        with pytest.raises(UsageError, match=rf"E_INPUT: .*{name} does not exist"):
            read_array(tmp_path / name)


def test_names(tmp_path):
    np.save(tmp_path / "n.npy", np.array([3, 3, 7]))
    assert read_names(tmp_path / "n.npy").tolist() == ["3", "3", "7"]
    assert read_names(written(tmp_path / "a.csv", "A1\nA1\nB2\n")).tolist() == ["A1", "A1", "B2"]
    assert read_names(written(tmp_path / "b.csv", "row,Case_ID\n1,A1\n2, B2\n")).tolist() == ["A1", "B2"]
    for text in ("x,y\n1,2\n", "case_id,x\nA,1\n,2\n", "x,case_id\n1,A\n2\n"):
        with pytest.raises(UsageError, match="E_TABLE"):
            read_names(written(tmp_path / "c.csv", text))


@pytest.mark.parametrize("head", ["patient_id", "PatientID", "patient_id ", "Participant-ID"])
def test_rows_of_a_patient_belong_together_whatever_the_column_is_called(tmp_path, head, capsys):
    text = f"case_id,{head},site\nA1,p,x\nA2,p,x\nB1,q,y\n"
    assert read_names(written(tmp_path / "cases.csv", text)).tolist() == ["p", "p", "q"]
    assert capsys.readouterr().out == "cases.csv: not used: site.\n"


@pytest.mark.parametrize("head", ["case_id", "Patient ID", "label"])
def test_a_column_that_is_no_class_is_not_taken_for_one(tmp_path, head):
    with pytest.raises(UsageError, match=f"columns of numbers for the classes in s.csv, got {head}"):
        read_array(written(tmp_path / "s.csv", f"{head},a,b\n1,0.5,0.5\n2,0.25,0.75\n"))
