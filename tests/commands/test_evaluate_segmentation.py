"""`tandem evaluate segmentation`: figures against sklearn's and plain arithmetic, what cannot be judged, the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pymupdf
import pytest
from PIL import Image
from scipy import stats
from sklearn.metrics import f1_score

from pipeline.commands.evaluate_segmentation import evaluate_segmentation
from pipeline.errors import UsageError
from tests.tandem_process import call

SHAPE, AFFINE = (12, 11, 10), np.diag([-2.0, 1.5, 1.0, 1.0])
CASES = [f"case{number}" for number in range(6)]


def write(values: Any, path: Path, affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.int16), affine, dtype=np.int16), path)
    return path


def truth_of(number: int) -> Any:
    values = np.zeros(SHAPE, int)
    values[2:8, 2:7, 2 : 6 + number % 3] = 1
    values[3:6, 3:5, 3:5] = 2
    return values


def predicted_of(number: int, shift: int) -> Any:
    values = np.roll(truth_of(number), shift + number % 2, axis=0)
    values[10, 9, 9] = 1
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged")
    flip = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for number, case in enumerate(CASES):
        write(truth_of(number), root / "raw" / "labelsTr" / f"{case}.nii.gz")
        write(np.random.default_rng(number).integers(0, 99, SHAPE), root / "raw" / "imagesTr" / f"{case}_0000.nii.gz")
        write(predicted_of(number, 1), root / "one" / f"{case}.nii.gz")
        # the same places in a file whose first axis runs the other way round
        write(predicted_of(number, 2)[::-1], root / "two" / f"{case}.nii.gz", flip)
    about = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    (root / "raw" / "dataset.json").write_text(json.dumps(about))
    (root / "cases.csv").write_text("case_id,patient_id\n" + "".join(f"{c},p{n // 2}\n" for n, c in enumerate(CASES)))
    return root


def dice(shift: int, values: list[int]) -> list[float]:
    pairs = [(truth_of(n), predicted_of(n, shift)) for n in range(len(CASES))]
    return [float(f1_score(np.isin(t, values).ravel(), np.isin(p, values).ravel())) for t, p in pairs]


def test_figures_tables_and_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    models = [folder / "one", folder / "two"]
    found = evaluate_segmentation(models, folder / "raw" / "labelsTr", out, cases=folder / "cases.csv", resamples=500)
    assert found.failed == {} and set(found.patients) == {"p0", "p1", "p2"}
    table = pd.read_csv(out / "cases.csv")
    for shift, model in ((1, "one"), (2, "two")):
        for region, values in (("whole", [1, 2]), ("core", [2])):
            rows = table[(table["model"] == model) & (table["region"] == region)]
            assert rows["case_id"].tolist() == CASES
            assert rows["dice"].tolist() == pytest.approx(dice(shift, values))
            assert found.means[model, region][0].value == pytest.approx(np.mean(dice(shift, values)))
    one_voxel = 0.003
    assert table["volume_error_ml"].tolist() == pytest.approx([one_voxel] * 6 + [0] * 6 + [one_voxel] * 6 + [0] * 6)
    whole = table[(table["model"] == "one") & (table["region"] == "whole")]
    assert whole["lesion_f1"].tolist() == pytest.approx([2 * 1 * 0.5 / 1.5] * 6)
    (first, _) = found.comparisons["whole"]
    expected = np.mean(dice(1, [1, 2])) - np.mean(dice(2, [1, 2]))
    assert (first.first, first.second) == ("one", "two") and first.difference == pytest.approx(expected)
    assert pd.read_csv(out / "differences.csv").iloc[0]["difference"] == pytest.approx(expected)
    with pymupdf.open(out / "report.pdf") as document:
        text = "\n".join(page.get_text() for page in document)
        assert sum(len(page.get_images()) for page in document) == 2 + 3
    assert f"{np.mean(dice(1, [2])):.3f}" in text and "one less two" in text
    # the worst cases, by the first model's mean over both regions
    ranks = stats.rankdata(np.mean([dice(1, [1, 2]), dice(1, [2])], axis=0), method="ordinal")
    assert f"{CASES[int(np.argmin(ranks))]}: Dice" not in text  # it stands in the picture, not in the text
    assert {path.name for path in out.glob("*.png")} == {
        *("dice_1.png", "dice_2.png", "worst_1.png", "worst_2.png", "worst_3.png")
    }


def test_without_images_every_label_parts_from_the_background_and_from_the_others(folder: Path, tmp_path: Path) -> None:
    """Labels 1 and 2 of the truth, drawn as greys: black, and two steps to white."""
    shutil.copytree(folder / "raw" / "labelsTr", tmp_path / "labels")
    evaluate_segmentation([folder / "one"], tmp_path / "labels", tmp_path / "out", resamples=50)
    greys, counts = np.unique(np.asarray(Image.open(tmp_path / "out" / "worst_1.png").convert("L")), return_counts=True)
    shown = set(greys[counts > 400])  # areas; the letters and outlines are thin
    assert {0, 179, 255} <= shown


def test_what_cannot_be_judged_is_said_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    for number, case in enumerate(CASES):
        write(predicted_of(number, 1), tmp_path / "p" / f"{case}.nii.gz")
    (tmp_path / "p" / "case0.nii.gz").unlink()
    write(np.zeros(SHAPE), tmp_path / "p" / "case1.nii.gz", AFFINE + np.array([[0, 0, 0, 4.0], *np.zeros((3, 4))]))
    write(np.full(SHAPE, 5), tmp_path / "p" / "case2.nii.gz")
    (tmp_path / "p" / "case3.nii.gz").write_bytes(b"x" * 400)
    done = call("evaluate", "segmentation", tmp_path / "p", folder / "raw" / "labelsTr", "-o", tmp_path / "out")
    assert done.code == 1
    for line in ("case0: E_INPUT", "case1: E_GRID", "case2: E_LABEL", "case3: E_NIFTI"):
        assert f"p: {line}" in done.err
    table = pd.read_csv(tmp_path / "out" / "cases.csv")
    assert table[table["region"] == "core"]["dice"].isna().tolist() == [True] * 4 + [False] * 2
    assert "p: whole: Dice" in done.out and not (tmp_path / "out" / "differences.csv").exists()


def test_regions_can_be_named_and_ignored_voxels_are_not_judged(folder: Path, tmp_path: Path) -> None:
    truth = truth_of(0)
    truth[2:4] = 3
    write(truth, tmp_path / "truth" / "case0.nii.gz")
    write(truth_of(0), tmp_path / "p" / "case0.nii.gz")
    given = ([tmp_path / "p"], tmp_path / "truth", tmp_path / "out")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}))
    found = evaluate_segmentation(*given, resamples=20)
    assert {key: items[0].value for key, items in found.means.items()} == {("p", "a"): 1.0, ("p", "b"): 1.0}
    (tmp_path / "dataset.json").unlink()
    found = evaluate_segmentation(*given, resamples=20)
    assert list(found.regions.values.items()) == [("label 1", (1,)), ("label 2", (2,)), ("label 3", (3,))]
    found = evaluate_segmentation(*given, label=["all=1,2,3"], resamples=20)
    assert found.means["p", "all"][0].value == pytest.approx(f1_score(truth.ravel() > 0, truth_of(0).ravel() > 0))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"truth": "nothing"}, "E_NO_CASES"),
        ({"label": ["a=x"]}, "E_OPTION"),
        ({"tolerance": 0}, "E_OPTION"),
        ({"name": ["a", "b"]}, "E_NAMES"),
        ({"predictions": []}, "E_NAMES"),
        ({"predictions": ["nothing"]}, "E_INPUT"),
        ({"label": ["a=1"]}, "E_LABEL"),
    ],
)
def test_what_cannot_start(folder: Path, tmp_path: Path, change: dict[str, Any], code: str) -> None:
    given: dict[str, Any] = {"predictions": [folder / "one"], "truth": folder / "raw" / "labelsTr", **change}
    with pytest.raises(UsageError) as refused:
        evaluate_segmentation(out=tmp_path / "out", resamples=10, **given)
    assert refused.value.code == code
