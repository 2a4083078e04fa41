"""Masks with a controlled risk: losses by hand, thresholds by hand, risks over 1,000 simulated calibration sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.statistics import mask_risk
from pipeline.calibration.risk_control import (
    EVERYTHING,
    NOTHING,
    RISKS,
    THRESHOLDS,
    RiskControl,
    control_risk,
    mask_losses,
)
from pipeline.errors import CaseError, UsageError

FNR, FDR = RISKS
CUTS = (0.0, 0.25, 0.5, 0.75, NOTHING)


def test_losses_by_hand():
    probability = np.array([[[0.1, 0.3, 0.5], [0.6, 0.9, 0.74]]], dtype=np.float32)
    truth = np.array([[[0, 1, 0], [1, 1, 0]]])
    assert mask_losses(probability, truth, FNR, CUTS) == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert mask_losses(probability, truth, FDR, CUTS) == pytest.approx([1 / 2, 2 / 5, 2 / 4, 0, 0])


def test_losses_are_those_of_the_masks_that_are_drawn_later():
    """On a threshold exactly, and in float32, where 0.3 is more than 0.3."""
    generator = np.random.default_rng(0)
    probability = generator.choice(np.float32(THRESHOLDS[:201]), size=(11, 7, 5))
    truth = generator.random(probability.shape) < 0.3
    missed, false = (mask_losses(probability, truth, risk) for risk in RISKS)
    for column, cut in enumerate(THRESHOLDS):
        mask = RiskControl(FNR, 0.1, {"all": cut}, {}, {}).mask(probability)
        assert missed[column] == pytest.approx(1 - mask[truth].mean())
        assert false[column] == pytest.approx((mask & ~truth).sum() / max(1, mask.sum()))


def test_a_case_with_nothing_to_find_is_left_out_of_false_negatives_alone():
    empty = np.zeros((2, 3, 4), dtype=bool)
    assert np.isnan(mask_losses(np.full(empty.shape, 0.4), empty, FNR, CUTS)).all()
    assert mask_losses(np.full(empty.shape, 0.4), empty, FDR, CUTS).tolist() == [1, 1, 0, 0, 0]
    losses = np.vstack([np.tile([0, 0, 0, 0.2, 1.0], (19, 1)), np.full((2, 5), np.nan)])
    found = control_risk(losses, FNR, 0.1, thresholds=CUTS)
    assert found.counts == {"all": 19} and found.left_out == {"all": 2}
    assert found.thresholds == {"all": 0.5}


def test_the_threshold_is_the_last_one_that_the_theorem_allows():
    """19 cases, alpha 0.1: the sum of the losses may be 20 * 0.1 - 1 = 1."""
    losses = np.zeros((19, 5))
    losses[:, 4] = 1
    losses[0, 3] = 1.0
    assert control_risk(losses, FNR, 0.1, thresholds=CUTS).thresholds == {"all": 0.75}
    losses[1, 3] = 0.01
    assert control_risk(losses, FNR, 0.1, thresholds=CUTS).thresholds == {"all": 0.5}


def test_false_discoveries_use_the_monotone_envelope():
    """The rate at 0.25 is fine, but that at 0.5 is not: the threshold has to lie above both."""
    losses = np.tile([0.5, 0.0, 0.5, 0.02, 0.0], (19, 1))
    assert control_risk(losses, FDR, 0.1, thresholds=CUTS).thresholds == {"all": 0.75}


@pytest.mark.parametrize("risk", RISKS)
def test_the_risk_is_kept_on_average_over_1000_calibration_sets(risk):
    found, cut = mask_risk(risk, splits=1000)
    assert found <= 0.1
    # not by giving up: false negatives are controlled closely, (alpha - 2 / (n + 1)) at least by theory
    assert found > (0.067 if risk == FNR else 0.03) and 0.1 < cut < 0.95


def test_too_few_cases_give_everything_or_nothing_and_say_so():
    losses = np.zeros((8, 5))
    for risk, cut, word in ((FNR, EVERYTHING, "everything"), (FDR, NOTHING, "empty")):
        found = control_risk(losses, risk, 0.1, thresholds=CUTS)
        assert found.thresholds == {"all": cut}
        assert f"at least 9 calibration cases, and there are 8. Every mask is {word}." in found.guarantees()[0]
        mask = found.mask(np.array([0.0, 0.5, 1.0]))
        assert mask.all() if risk == FNR else not mask.any()


def test_groups_get_thresholds_of_their_own():
    easy, hard = np.tile([0, 0, 0, 0, 1.0], (12, 1)), np.tile([0, 0, 0.5, 0.9, 1.0], (12, 1))
    found = control_risk(np.vstack([easy, hard]), FNR, 0.1, ["A"] * 12 + ["B"] * 12, CUTS)
    assert found.thresholds == {"A": 0.75, "B": 0.25}
    assert found.mask([0.5], "A").tolist() == [False] and found.mask([0.5], "B").tolist() == [True]
    assert "not for each case" in found.guarantees()[0]
    with pytest.raises(CaseError, match="got C"):
        found.mask([0.5], "C")
    again = RiskControl.from_json(json.dumps(found.to_json()))
    assert again == found


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: control_risk(np.zeros((9, 4)), FNR, 0.1, thresholds=CUTS), "E_CONFORMAL"),
        (lambda: control_risk(np.zeros((9, 5)), FNR, 1.5, thresholds=CUTS), "E_CONFORMAL"),
        (lambda: control_risk(np.zeros((9, 5)), "dice", 0.1, thresholds=CUTS), "E_CONFORMAL"),
        (lambda: control_risk(np.zeros((9, 3)), FNR, 0.1, thresholds=(0.0, 0.5, 1.0)), "E_CONFORMAL"),
        (lambda: control_risk(np.zeros((9, 5)), FNR, 0.1, ["A"], CUTS), "E_ROWS"),
        (lambda: mask_losses(np.zeros((2, 2)), np.zeros((2, 3)), FNR), "E_CONFORMAL"),
        (lambda: mask_losses(np.full(3, np.nan), np.ones(3), FNR), "E_PROBABILITY"),
        (lambda: mask_losses(np.full(3, 1.2), np.ones(3), FDR), "E_PROBABILITY"),
    ],
)
def test_what_cannot_be_controlled_is_refused(call, code):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == code
