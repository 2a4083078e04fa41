from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from pipeline.comparison.linear import out_of_fold
from pipeline.comparison.stream_controls import controls, told_facts
from pipeline.comparison.stream_features import (
    RawFile,
    fact_features,
    file_facts,
    frame,
    read_raw,
    thumbnail,
    told_fact,
)
from pipeline.errors import UsageError
from pipeline.evaluation.results import Settings
from pipeline.learning.table import Row, read_table
from tests.phantoms.streams.cohort import Shown, simulate_streams
from tests.phantoms.streams.cues import draw_cues
from tests.phantoms.streams.files import write_cohort

SETTINGS = Settings(resamples=100)
COUNT = 90
CLASS_ONE = "class 1"


def picture_rows(folder: Path, planted: str) -> list[Row]:
    """Pictures of noise of two classes, with the class planted: nowhere, in the frame, the middle, the size."""
    random, found = np.random.default_rng(0), []
    for case in range(COUNT):
        label = case % 2
        side = 64 + (4 * label if planted == "size" else 0)
        array = random.normal(100, 20, (side, side))
        if planted == "frame":
            array[:3] += 8 * label
        if planted == "middle":
            array[24:40, 24:40] += 8 * label
        path = folder / f"{case}.png"
        Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(path)
        found.append(Row(f"case-{case}", f"case-{case}", {"x": path}, label, None, (), None))
    return found


@pytest.mark.parametrize(
    ("planted", "tells"),
    [("nowhere", set()), ("frame", {"Frame", "Thumbnail"}), ("middle", {"Thumbnail"}), ("size", {"File facts"})],
)
def test_each_control_finds_what_was_planted_for_it_and_nothing_else(
    tmp_path: Path, planted: str, tells: set[str]
) -> None:
    found = controls(picture_rows(tmp_path, planted), ["x"], folds=3, settings=SETTINGS)
    assert [item.model for item in found.by_patient] == ["File facts", "Frame", "Thumbnail"]
    for item in found.by_patient:
        if planted == "size" and item.model != "File facts":
            continue  # a larger picture has averages of more pixels
        area = item.estimate("auroc", CLASS_ONE).value
        assert (area or 0) > 0.9 if item.model in tells else 0.25 < (area or 0) < 0.75, (item.model, area)
    assert found.random == ()


def test_patients_in_two_folds_flatter_and_the_random_folds_show_it(tmp_path: Path) -> None:
    """Ten pictures a patient, each patient with a pattern of their own: their class is known by who they are."""
    random, rows = np.random.default_rng(1), []
    for patient in range(12):
        pattern = random.normal(120, 15, (16, 16))
        for number in range(8):
            array = np.kron(pattern + random.normal(0, 4, (16, 16)), np.ones((4, 4)))
            path = tmp_path / f"{patient}-{number}.png"
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(path)
            rows.append(Row(path.stem, f"p{patient}", {"x": path}, patient % 2, None, (), None))
    found = controls(rows, ["x"], folds=3, settings=SETTINGS)
    by_patient, drawn = (
        {item.model: item.estimate("auroc", CLASS_ONE).value for item in part}
        for part in (found.by_patient, found.random)
    )
    assert (drawn["Thumbnail"] or 0) > 0.99
    assert (by_patient["Thumbnail"] or 1) < 0.9


def test_facts_told_by_the_table_are_used(tmp_path: Path) -> None:
    rows = picture_rows(tmp_path, "nowhere")
    table = tmp_path / "cases.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case_id", "original_size", "label"])
        sizes = {0: "1024x1024", 1: "900x1100"}
        writer.writerows(
            [row.case_id, sizes[row.label] if int(row.case_id[5:]) % 9 else "1024x1024", row.label] for row in rows
        )
    told = told_facts(table, ["original_size"])
    assert told["case-1"]["original_size_0"] == pytest.approx(np.log(900))
    found = controls(rows, ["x"], folds=3, told=told, settings=SETTINGS)
    assert (found.by_patient[0].estimate("auroc", CLASS_ONE).value or 0) > 0.9
    with pytest.raises(UsageError, match="E_TABLE"):
        told_facts(table, ["sauce"])


def test_regression_reaches_what_bayes_allows_and_chooses_by_training_cases_alone() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(600) % 2
    features = random.normal(size=(600, 30))
    features[:, 0] += 1.5 * labels
    features[::7, 3] = np.nan
    chances = out_of_fold(features, labels, np.arange(600) // 2 % 5, np.arange(600), 2)
    pairs = chances[labels == 1, 1][:, None] > chances[labels == 0, 1]
    oracle = features[labels == 1, 0][:, None] > features[labels == 0, 0]
    assert oracle.mean() == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.05)
    assert oracle.mean() - 0.02 < pairs.mean() < oracle.mean() + 0.01
    np.testing.assert_allclose(chances.sum(1), 1)
    folds = np.arange(600) // 2 % 5
    one = out_of_fold(features, labels, folds, np.arange(600), 2, judged=[3])
    np.testing.assert_array_equal(one[folds == 3], chances[folds == 3])
    assert np.isnan(one[folds != 3]).all()
    with pytest.raises(UsageError, match="E_FOLD"):
        out_of_fold(features, labels, np.zeros(600, int), np.arange(600), 2)
    with pytest.raises(UsageError, match="E_FOLD"):
        out_of_fold(features[:20], labels[:20], np.arange(20) // 2 % 5, labels[:20], 2)


def test_features_are_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    blocks = np.arange(256.0).reshape(16, 16)
    Image.fromarray(np.kron(blocks, np.ones((7, 7))).astype(np.uint8)).save(path)
    raw = read_raw(path)
    np.testing.assert_allclose(thumbnail(raw), np.arange(256.0))
    inner = RawFile("picture", np.pad(np.full((192, 192), 9.0), 16))
    assert frame(inner) is not None and not np.any(frame(inner))
    assert frame(RawFile("picture", 1 - np.pad(np.ones((192, 192)), 16))).tolist() == [1.0] * 208  # type: ignore[union-attr]
    assert frame(RawFile("sound", np.zeros((900, 1)), (8000.0,))) is None
    facts = file_facts(path, RawFile("sound", np.full((16000, 1), 0.5), (8000.0,)))
    assert facts["duration_s"] == 2 and facts["loudness_db"] == pytest.approx(-6.0206, abs=1e-3)
    volume = RawFile("volume", np.arange(32 * 32 * 3.0).reshape(32, 32, 3), (1.0, 1.0, 2.0))
    np.testing.assert_allclose(thumbnail(volume).reshape(16, 16)[0, 0], volume.values[:2, :2].mean())
    assert file_facts(path, volume)["size"] == "32x32x3" and file_facts(path, volume)["voxel_2"] == 2.0


def test_cells_become_facts() -> None:
    assert told_fact("n", "3.5") == {"n": 3.5}
    assert told_fact("n", "nih") == {"n": "nih"} and told_fact("n", "") == {}
    assert told_fact("n", "20X10")["n_ratio"] == pytest.approx(np.log(2))
    assert told_fact("n", "xray") == {"n": "xray"}
    table = fact_features([{"a": "x", "b": 1.0}] * 5 + [{"a": "y"}] * 2)
    assert table.shape == (7, 2) and np.isnan(table[5:, 1]).all() and table[:, 0].tolist() == [1] * 5 + [0] * 2


def test_late_fusion_is_the_posterior_of_class_paired_cases() -> None:
    cues = draw_cues("additive", 4, 3, 500, np.random.default_rng(0), "class")
    late = cues.alone.prod(1)  # all priors are equal
    np.testing.assert_allclose(late / late.sum(1, keepdims=True), cues.posterior, atol=1e-12)


def test_tables_of_simulated_streams_say_how_they_are_paired(tmp_path: Path) -> None:
    streams = {"image": Shown("image", (24, 24)), "cough": Shown("sound", (8000,))}
    for pairing in ("patient", "class"):
        cohort = simulate_streams("additive", 40, 0, streams, pairing=pairing)  # type: ignore[arg-type]
        table = write_cohort(tmp_path / pairing, cohort)
        assert {row.pairing == "class" for row in read_table(table, list(streams), 2)} == {pairing == "class"}
    rows = read_table(table, list(streams), 2)
    found = controls(rows, list(streams), folds=3, settings=SETTINGS)
    assert [item.case_count for item in found.by_patient] == [40] * 3
    some = [
        replace(row, images={"image": row.images["image"]}) if number % 3 else row for number, row in enumerate(rows)
    ]
    assert len(controls(some, list(streams), folds=3, settings=SETTINGS).by_patient) == 3
    with pytest.raises(UsageError, match="E_MODALITY"):
        controls(rows, ["ct"], folds=3)
    with pytest.raises(UsageError, match="E_LABEL"):
        controls([replace(rows[0], label=-1), *rows[1:]], ["image"])
