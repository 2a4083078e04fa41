"""`tandem evaluate classification`: what it writes, and how it refuses what it cannot use."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pymupdf
import pytest
from sklearn.metrics import roc_auc_score

from tests.tandem_process import Run, call, tandem


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two models of 90 cases of 45 patients; the labels as a CSV with a header."""
    generator = np.random.default_rng(0)
    labels = np.repeat((generator.random(45) < 0.4).astype(int), 2)
    for name, strength in (("fusion", 2.5), ("ct", 1.0)):
        # the second case of a patient is nearly the first
        logits = strength * (labels - 0.4) + np.repeat(generator.normal(size=45), 2) + 0.01 * generator.normal(size=90)
        np.save(tmp_path / f"{name}.npy", 1 / (1 + np.exp(-logits)))
    (tmp_path / "labels.csv").write_text("label\n" + "".join(f"{label}\n" for label in labels))
    rows = "".join(f"case-{index},patient-{index // 2}\n" for index in range(90))
    (tmp_path / "cases.csv").write_text("case_id,patient_id\n" + rows)
    return tmp_path


def evaluate(files: Path, *more: str | Path, models: tuple[str, ...] = ("fusion.npy",)) -> Run:
    given = [argument for model in models for argument in ("--probabilities", files / model)]
    labels = () if "--labels" in more else ("--labels", files / "labels.csv")
    return call("evaluate", "classification", *given, *labels, "--out", files / "out", *more)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_models_as_a_person_would_run_it(files: Path, tandem_home: Path) -> None:
    run = tandem(
        tandem_home,
        *("evaluate", "classification", "--probabilities", files / "fusion.npy", "--probabilities", files / "ct.npy"),
        *("--name", "Gated fusion", "--name", "=CT()", "--class-name", "benign", "--class-name", "malignant"),
        *("--labels", files / "labels.csv", "--cases", files / "cases.csv", "--out", files / "out"),
    )
    assert run.code == 0, run.err
    labels = np.array([float(row["label"]) for row in rows_of(files / "labels.csv")])
    area = roc_auc_score(labels, np.load(files / "fusion.npy"))
    assert f"Gated fusion: AUROC {area:.3f}" in run.out and "report.html" in run.out
    written = {path.name for path in (files / "out").iterdir() if not path.name.startswith(".")}
    charts = {f"{name}_1.png" for name in ("roc", "precision_recall", "decision", "confusion")} | {"confusion_2.png"}
    assert written == charts | {"table.csv", "comparisons.csv", "report.pdf", "report.html"}
    table = pd.read_csv(files / "out" / "table.csv")
    found = table[(table.model == "Gated fusion") & (table.measure == "auroc") & table.low.notna()].iloc[0]
    assert found.value == pytest.approx(area) and found.low < area < found.high and found["class"] == "malignant"
    assert set(table.patients) == {45} and set(table.cases) == {90} and "BCa bootstrap" in set(table.method)
    # a spreadsheet would run the name as a formula
    assert set(table.model) == {"Gated fusion", "'=CT()"}
    compared = rows_of(files / "out" / "comparisons.csv")
    assert {row["first"] for row in compared} == {"Gated fusion"} and len(compared) == 9
    with pymupdf.open(files / "out" / "report.pdf") as document:
        text = "".join(page.get_text() for page in document)
    assert "45 patients" in text and f"{area:.3f}" in text and "=CT()" in text


def test_several_cases_of_a_patient_widen_the_interval(files: Path) -> None:
    widths = []
    for more in ((), ("--cases", files / "cases.csv")):
        assert evaluate(files, *more).code == 0
        row = next(row for row in rows_of(files / "out" / "table.csv") if row["measure"] == "brier")
        widths.append(float(row["high"]) - float(row["low"]))
    assert widths[1] / widths[0] == pytest.approx(2**0.5, rel=0.1)
    notes = [row["note"] for row in rows_of(files / "out" / "table.csv") if row["measure"] == "auroc"]
    assert any("some patients have several" in note for note in notes)


def test_a_second_evaluation_replaces_the_first(files: Path) -> None:
    assert evaluate(files, models=("fusion.npy", "ct.npy")).code == 0
    first = (files / "out" / "roc_1.png").read_bytes()
    (files / "out" / "mine.png").write_bytes(b"x")
    assert evaluate(files, models=("fusion.npy", "ct.npy")).code == 0
    assert (files / "out" / "roc_1.png").read_bytes() == first
    assert evaluate(files).code == 0
    left = {path.name for path in (files / "out").iterdir()}
    assert "mine.png" in left and not left & {"comparisons.csv", "confusion_2.png"}


def test_three_classes_with_one_absent(files: Path) -> None:
    generator = np.random.default_rng(1)
    np.savetxt(files / "three.csv", generator.dirichlet(np.ones(3), 30), delimiter=",", header="a,b,c", comments="")
    np.savez(files / "y.npz", labels=np.arange(30) % 2)
    run = evaluate(files, "--labels", files / "y.npz", models=("three.csv",))
    assert run.code == 0 and "three: AUROC" in run.out and "macro" not in run.out
    rows = {(row["measure"], row["class"]): row for row in rows_of(files / "out" / "table.csv")}
    assert rows["auroc", "class 2"]["value"] == "" and rows["auroc", "class 2"]["note"] == "no case is class 2"
    assert not (files / "out" / "roc_3.png").exists() and (files / "out" / "decision_3.png").exists()
    assert "No case is class 2" in (files / "out" / "report.html").read_text()


def test_one_case(files: Path) -> None:
    np.save(files / "p.npy", np.array([0.8]))
    np.save(files / "y.npy", np.array([1]))
    run = evaluate(files, "--labels", files / "y.npy", models=("p.npy",))
    assert run.code == 0 and "accuracy 1.000, not available" in run.out
    notes = {row["measure"]: row["note"] for row in rows_of(files / "out" / "table.csv")}
    assert notes["auroc"] == "every case is class 1" and notes["accuracy"] == "an interval takes at least two patients"


BAD = {
    "rows": (np.full(89, 0.5), "E_ROWS"),
    "nan": (np.where(np.arange(90) == 7, np.nan, 0.5), "E_PROBABILITY"),
    "outside": (np.where(np.arange(90) == 7, 1.5, 0.5), "E_PROBABILITY"),
    "sum": (np.full((90, 2), 0.6), "E_PROBABILITY"),
    "shape": (np.full((90, 2, 2), 0.5), "E_ROWS"),
    "pickle": (np.array([{}] * 90, dtype=object), "E_TABLE"),
}


def refused(files: Path, run: Run, code: str) -> str:
    assert run.code == 2, (run.out, run.err)
    assert run.err.startswith(f"{code}: ") and len(run.err.strip().splitlines()) == 1
    assert not (files / "out").exists() or not list((files / "out").glob("*.*"))
    return run.err


@pytest.mark.parametrize("name", BAD)
def test_bad_probabilities_are_refused_in_one_line(files: Path, name: str) -> None:
    values, code = BAD[name]
    np.save(files / "bad.npy", values, allow_pickle=True)
    refused(files, evaluate(files, models=("bad.npy",)), code)


def test_bad_labels_names_options_and_files_are_refused_in_one_line(files: Path) -> None:
    np.save(files / "y.npy", np.full(90, 2))
    assert "got 2 in row 1" in refused(files, evaluate(files, "--labels", files / "y.npy"), "E_LABEL")
    refused(files, evaluate(files, "--labels", files / "none.csv"), "E_INPUT")
    refused(files, evaluate(files, "--name", "A", "--name", "B"), "E_NAMES")
    refused(files, evaluate(files, models=("ct.npy", "ct.npy")), "E_NAMES")
    refused(files, evaluate(files, "--class-name", "a"), "E_NAMES")
    refused(files, evaluate(files, "--specificity", "1.5"), "E_OPTION")
    (files / "short.csv").write_text("patient_id\np1\n")
    refused(files, evaluate(files, "--cases", files / "short.csv"), "E_ROWS")
    (files / "empty.csv").write_text("patient_id,site\n" + "p1,a\n" * 89 + ",a\n")
    refused(files, evaluate(files, "--cases", files / "empty.csv"), "E_TABLE")
    (files / "unnamed.csv").write_text("site,scanner\n" + "a,b\n" * 90)
    refused(files, evaluate(files, "--cases", files / "unnamed.csv"), "E_TABLE")
    (files / "file").write_text("x")
    run = call(
        *("evaluate", "classification", "-p", files / "ct.npy", "-l", files / "labels.csv"),
        *("--out", files / "file" / "out"),
    )
    refused(files, run, "E_OUT")
