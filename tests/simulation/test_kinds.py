"""The class of a simulated patient: its posterior, and what CT and MR show of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pipeline.simulation.cohort import simulate_cohort
from pipeline.simulation.head import HeadTemplate
from pipeline.simulation.kinds import HU_OF_ONE, Kind, random_kind, with_kind
from pipeline.simulation.protocol import scan_pair
from pipeline.simulation.subject import random_subject
from pipeline.simulation.tissues import MR_SCALE
from scripts.head_files import write_head_cases

pytestmark = pytest.mark.slow


def test_the_posterior_is_bayes_rule_and_says_how_often() -> None:
    kinds = [random_kind(np.random.default_rng([9, number])) for number in range(4000)]
    cues = np.array([[kind.ct_cue, kind.mr_cue] for kind in kinds])
    likelihoods = [norm.pdf(cues, mean).prod(1) for mean in (-0.6, 0.6)]
    posterior = np.array([kind.posterior for kind in kinds])
    assert np.allclose(posterior, likelihoods[1] / sum(likelihoods))
    labels = np.array([kind.label for kind in kinds])
    for low in np.arange(0, 1, 0.2):
        there = (posterior >= low) & (posterior < low + 0.2)
        spread = np.sqrt(posterior[there] * (1 - posterior[there])).sum() / there.sum() / np.sqrt(there.sum())
        assert labels[there].mean() == pytest.approx(posterior[there].mean(), abs=4 * spread)
    assert roc_auc_score(labels, posterior) == pytest.approx(norm.cdf(1.2), abs=0.02)


@pytest.mark.parametrize(("ct_cue", "mr_cue"), [(2.0, -1.0), (-2.0, 1.0)])
def test_the_lesions_show_the_cues(template: HeadTemplate, ct_cue: float, mr_cue: float) -> None:
    subject = random_subject(template, np.random.default_rng(4), 0.0, 0.0, 3)
    shown = with_kind(subject, Kind(1, ct_cue, mr_cue, 0.5))
    assert [lesion.shape for lesion in shown.lesions] == [lesion.shape for lesion in subject.lesions]
    ct, mr = scan_pair(shown, 2.0, np.random.default_rng(1))
    # the voxels that the lesions fill: those of lesions that are smaller by 2 mm
    small = tuple(
        replace(lesion, shape=replace(lesion.shape, radii_mm=tuple(r - 2 for r in lesion.shape.radii_mm)))
        for lesion in shown.lesions
    )
    inner = replace(shown, lesions=small)
    in_ct = ct.numpy()[inner.labels_ct(tuple(ct.shape[1:]), ct.affine.numpy()).numpy() > 0]
    assert in_ct.mean() == pytest.approx(31 + HU_OF_ONE * ct_cue, abs=2)
    # the MR lies as the CT does here, but for a grid of its own
    in_mr = mr.numpy()[inner.labels_ct(tuple(mr.shape[1:]), mr.affine.numpy()).numpy() > 0]
    signal = 0.9 * (1 - np.exp(-500 / (1600 * 1.42**mr_cue))) * np.exp(-10 / 145)
    # a bias of up to 35 % lies over it
    assert in_mr.mean() / MR_SCALE == pytest.approx(signal, rel=0.36)


def test_a_cohort_keeps_the_classes_with_its_truth(tmp_path: Path) -> None:
    cohort = simulate_cohort(tmp_path, 1, spacing_mm=6.0, faulty=0, kinds=True)
    found = json.loads((cohort.truth / "SIM-0001" / "class.json").read_text())
    assert Kind(**found) == random_kind(np.random.default_rng([0, 1, 1]))


def test_heads_for_training_lie_on_one_grid_and_keep_their_posterior(tmp_path: Path) -> None:
    write_head_cases(tmp_path, "cases.csv", range(3, 5), 2, seed=8, spacing_mm=6.0)
    with (tmp_path / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["fold"] for row in rows] == ["1", "0"] and len({row["patient_id"] for row in rows}) == 2
    for row, number in zip(rows, (3, 4), strict=True):
        kind = random_kind(np.random.default_rng([8, number, 1]))
        assert (int(row["label"]), float(row["posterior"])) == (kind.label, pytest.approx(kind.posterior, abs=1e-6))
        ct, mr, mask = (nib.load(tmp_path / row[key]) for key in ("ct", "mr", "mask"))
        assert ct.shape == mr.shape == mask.shape and np.array_equal(ct.affine, mr.affine)
        lesions = np.asarray(mask.dataobj) > 0
        assert lesions.any() and set(np.unique(mask.dataobj)) == {0, 1}
        # aligned: the skull, bright in CT, is dark in MR, and the air around is dark in both
        bone, air = np.asarray(ct.dataobj) > 300, np.asarray(ct.dataobj) < -900
        brain = np.abs(np.asarray(ct.dataobj) - 35.0) < 10
        values = np.asarray(mr.dataobj, dtype=float)
        assert np.median(values[air]) < 30 < np.median(values[bone]) < 0.7 * np.median(values[brain])


def test_images_of_another_seed_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    """Their lesions show another kind than the table would say; those of the same seed stay as they are."""
    options = {"folds": 1, "spacing_mm": 8.0}
    for folder, seeds in (("fresh", [2]), ("used", [1, 2])):
        for seed in seeds:
            write_head_cases(tmp_path / folder, "cases.csv", range(1), seed=seed, **options)
    fresh, used = (nib.load(tmp_path / name / "head-0000_mr.nii.gz") for name in ("fresh", "used"))
    assert np.array_equal(np.asarray(fresh.dataobj), np.asarray(used.dataobj))
    before = (tmp_path / "used" / "head-0000_mr.nii.gz").stat().st_mtime_ns
    write_head_cases(tmp_path / "used", "cases.csv", range(1), seed=2, **options)
    assert (tmp_path / "used" / "head-0000_mr.nii.gz").stat().st_mtime_ns == before
