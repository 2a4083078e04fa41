"""`tandem calibrate` from files to files, as a person runs it."""

import json
import subprocess
import sys

import numpy as np
import pymupdf
import pytest
from typer.testing import CliRunner

from pipeline.calibration.comparison import read_calibration
from pipeline.cli import app
from pipeline.errors import REMEDIES

RUN = CliRunner()


@pytest.fixture
def files(tmp_path):
    """240 rows of 80 cases, overconfident by the factor 2, as .npy, .npz and .csv."""
    random = np.random.default_rng(0)
    z = 3 * random.normal(size=(240, 3))
    p = np.exp(z / 2) / np.exp(z / 2).sum(axis=1, keepdims=True)
    y = (random.random((240, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    np.save(tmp_path / "z.npy", z.astype(np.float32))
    np.savez(tmp_path / "z.npz", z)
    np.savetxt(tmp_path / "z.csv", z, delimiter=",", header="a,b,c", comments="")
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "y.csv").write_text("label\n" + "\n".join(map(str, y)))
    (tmp_path / "cases.csv").write_text("case_id\n" + "\n".join(f"P{row // 3}" for row in range(240)))
    return tmp_path


def tandem(folder, *arguments):
    names = [str(folder / item) if "." in item and not item.startswith("-") else item for item in arguments]
    return RUN.invoke(app, ["calibrate", *names])


@pytest.mark.parametrize(("logits", "labels"), [("z.npy", "y.npy"), ("z.npz", "y.csv"), ("z.csv", "y.csv")])
def test_fit_and_apply(files, logits, labels):
    made = tandem(files, "--logits", logits, "--labels", labels, "--cases", "cases.csv", "--out", "c.json")
    assert made.exit_code == 0, made.output
    assert "Temperature calibration on 80 cases, 3 classes: NLL" in made.output
    fitted = read_calibration(files / "c.json")
    assert fitted.temperature == pytest.approx(2, abs=0.6)
    data = json.loads((files / "c.json").read_text())
    assert (data["method"], data["rows"], data["cases"], data["classes"]) == ("temperature", 240, 80, 3)
    assert data["data"] == f"{logits}, cases of cases.csv" and data["nll_after"] < data["nll_before"]
    done = tandem(files, "--apply", "c.json", "--logits", logits, "--out", "p.npy")
    assert done.exit_code == 0, done.output
    z = np.load(files / "z.npy").astype(float) / fitted.temperature
    assert np.abs(np.load(files / "p.npy") - np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).max() < 1e-6


def test_a_volume_is_applied_to(files):
    assert (
        tandem(files, "--logits", "z.npy", "--labels", "y.npy", "--method", "vector", "--out", "c.json").exit_code == 0
    )
    volume = 3 * np.random.default_rng(1).normal(size=(3, 5, 6, 7))
    np.save(files / "v.npy", volume)
    assert tandem(files, "--apply", "c.json", "--logits", "v.npy", "--out", "p.npy").exit_code == 0
    found = np.load(files / "p.npy")
    assert found.shape == (3, 5, 6, 7) and found.sum(axis=0) == pytest.approx(np.ones((5, 6, 7)))


def test_report_and_recommendation(files):
    made = tandem(files, "--logits", "z.npy", "--labels", "y.npy", "--method", "recommended",
                  "--out", "c.json", "--report", "c.pdf")  # fmt: skip
    assert made.exit_code == 0, made.output
    method = json.loads((files / "c.json").read_text())["method"]
    with pymupdf.open(files / "c.pdf") as document:
        text = " ".join(page.get_text() for page in document)
    assert f"Take {method}" in text and f"{method} (recommended, saved)" in " ".join(text.split())
    assert "z.npy, SHA-256" in text


def test_sets_travel_with_the_calibration_and_are_applied(files):
    made = tandem(files, "--logits", "z.npy", "--labels", "y.npy", "--cases", "cases.csv", "--sets=0.2",
                  "--sets-rule", "lac", "--out", "c.json", "--report", "c.pdf")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "Calibrated on n = 80 cases" in made.output
    z, y = np.load(files / "z.npy").astype(float), np.load(files / "y.npy")
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    worst = (1 - p[np.arange(240), y]).reshape(80, 3).max(axis=1)
    cut = np.sort(worst)[64]  # ceil(81 * 0.8) = 65
    assert json.loads((files / "c.json").read_text())["sets"]["threshold"] == pytest.approx(cut)
    applied = tandem(files, "--apply", "c.json", "--logits", "z.npy", "--out", "p.npy")
    assert applied.exit_code == 0 and f", sets of classes: {files / 'p_sets.npy'}\n" in applied.stdout
    held = np.load(files / "p_sets.npy")
    assert held.dtype == bool and np.array_equal(held, 1 - p <= cut)
    assert tandem(files, "--logits", "z.npy", "--labels", "y.npy", "--out", "without.json").exit_code == 0
    assert tandem(files, "--apply", "without.json", "--logits", "z.npy", "--out", "p.npy").exit_code == 0
    assert not (files / "p_sets.npy").exists()  # they were not of these probabilities
    with pymupdf.open(files / "c.pdf") as document:
        text = " ".join(" ".join(page.get_text() for page in document).split())
    assert "Sets of classes" in text and "of 80 cases (" in text and "Sets of 3 classes" in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--logits", "z.npy", "--labels", "y.npy", "--sets=0", "--out", "c.json"), "E_CONFORMAL"),
        (("--logits", "z.npy", "--labels", "y.npy", "--sets=0.001", "--out", "c.json"), "E_CONFORMAL"),
        (("--logits", "z.npy", "--labels", "y.npy", "--sets=1", "--out", "c.json"), "E_CONFORMAL"),
        (("--logits", "z.npy", "--labels", "y.npy", "--sets-rule", "aps", "--out", "c.json"), "E_OPTION"),
        (("--apply", "good.json", "--logits", "z.npy", "--sets=1", "--out", "o.npy"), "E_CAL_METHOD"),
        (("--logits", "none.npy", "--labels", "y.npy", "--out", "c.json"), "E_INPUT"),
        (("--logits", "z.npy", "--out", "c.json"), "E_TABLE"),
        (("--logits", "z.npy", "--labels", "half.npy", "--out", "c.json"), "E_ROWS"),
        (("--logits", "nan.npy", "--labels", "y.npy", "--out", "c.json"), "E_CAL_NONFINITE"),
        (("--logits", "p.npy", "--labels", "y.npy", "--out", "c.json"), "E_CAL_PROBABILITIES"),
        (("--logits", "z.npy", "--labels", "high.npy", "--out", "c.json"), "E_LABEL"),
        (("--logits", "z.npy", "--labels", "two.npy", "--out", "c.json"), "E_CAL_CLASS_ABSENT"),
        (("--logits", "one.npy", "--labels", "label.npy", "--out", "c.json"), "E_CAL_TOO_FEW"),
        (("--logits", "z.npy", "--labels", "y.npy", "--method", "magic", "--out", "c.json"), "E_CAL_METHOD"),
        (("--logits", "z.npy", "--labels", "y.npy", "--method", "platt", "--out", "c.json"), "E_CAL_CLASSES"),
        (("--logits", "z.npy", "--labels", "y.npy", "--source", "training", "--out", "c.json"), "E_CAL_TRAINING"),
        (("--apply", "none.json", "--logits", "z.npy", "--out", "o.npy"), "E_INPUT"),
        (("--apply", "y.csv", "--logits", "z.npy", "--out", "o.npy"), "E_CAL_FILE"),
        (("--apply", "good.json", "--logits", "pair.npy", "--out", "o.npy"), "E_CAL_CLASSES"),
        (("--apply", "good.json", "--logits", "z.npy", "--out", "o.csv"), "E_OUT"),
        (("--apply", "good.json", "--logits", "z.npy", "--labels", "y.npy", "--out", "o.npy"), "E_CAL_METHOD"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files, arguments, code):
    z, y = np.load(files / "z.npy"), np.load(files / "y.npy")
    spoilt = z.copy()
    spoilt[3, 1] = np.nan
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    arrays = {"half": y[:100], "nan": spoilt, "p": p, "high": y + 1, "two": y % 2, "one": z[:1], "label": y[:1]}
    for name, array in {**arrays, "pair": z[:, :2]}.items():
        np.save(files / f"{name}.npy", array)
    assert tandem(files, "--logits", "z.npy", "--labels", "y.npy", "--out", "good.json").exit_code == 0
    result = tandem(files, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{code}: ") and (line.endswith(REMEDIES[code]) or "--" in line)
    assert not {"c.json", "o.npy", "o.csv"} & {path.name for path in files.iterdir()}
    assert not list(files.glob(".tmp-*"))


def test_help_is_light():
    code = (
        "import sys, pipeline.cli, pipeline.calibration;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'matplotlib', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
