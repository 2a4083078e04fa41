"""The mechanisms are what they claim to be: seen alone, together, and by their posterior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.simulation.kinds import ADDITIVE_CUE
from tests.phantoms.mechanisms import MECHANISMS, MechanismCases, mechanism_cases, true_nll


def brightness(cases: MechanismCases, modality: int) -> np.ndarray:
    inside = cases.masks > 0
    return (cases.images[:, modality] * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))


def products(cases: MechanismCases) -> np.ndarray:
    centred = cases.images - 2.5 * cases.masks[:, None]
    return (centred[:, 0] * centred[:, 1] * cases.masks).sum((1, 2, 3))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_posterior_is_calibrated(mechanism: str) -> None:
    """Of the cases with a posterior near p, a share p is of class 1; the classes are equally likely."""
    cases = mechanism_cases(mechanism, 2000, seed=3, size=14)  # type: ignore[arg-type]
    assert abs(cases.labels.mean() - 0.5) < 0.04
    for low in np.arange(0, 1, 0.25):
        near = (cases.posterior >= low) & (cases.posterior <= low + 0.25)
        if near.sum() > 30:
            spread = 4 * np.sqrt(0.25 / near.sum())
            assert cases.labels[near].mean() == pytest.approx(cases.posterior[near].mean(), abs=spread)
    clipped = np.clip(cases.posterior, 1e-15, 1 - 1e-15)
    assert true_nll(cases) == pytest.approx(log_loss(cases.labels, clipped), abs=1e-9)


def test_additive_cues_add_up() -> None:
    """d' = 1.2 alone and 1.2 sqrt 2 together; AUC = Phi(d' / sqrt 2): .802 and .885."""
    cases = mechanism_cases("additive", 4000, seed=1, size=14)
    alone = [roc_auc_score(cases.labels, brightness(cases, modality)) for modality in (0, 1)]
    assert alone == pytest.approx([norm.cdf(2 * ADDITIVE_CUE / np.sqrt(2))] * 2, abs=0.03)
    assert roc_auc_score(cases.labels, cases.posterior) == pytest.approx(norm.cdf(2 * ADDITIVE_CUE), abs=0.02)


def test_exclusive_cues_say_nothing_alone_or_in_sum() -> None:
    cases = mechanism_cases("exclusive", 4000, seed=1, size=14)
    ct, mr = brightness(cases, 0), brightness(cases, 1)
    for cue in (ct, mr, ct + mr, ct - mr):
        assert roc_auc_score(cases.labels, cue) == pytest.approx(0.5, abs=0.04)
    disagreement = -(ct - ct.mean()) * (mr - mr.mean())
    assert roc_auc_score(cases.labels, disagreement) > 0.95
    assert roc_auc_score(cases.labels, cases.posterior) > 0.97


def test_textures_differ_in_their_correlation_alone() -> None:
    cases = mechanism_cases("texture", 600, seed=1, size=14)
    for modality in (0, 1):
        inside = cases.images[:, modality][cases.masks > 0] - 2.5
        assert (inside.mean(), inside.std()) == pytest.approx((0.0, 1.0), abs=0.02)
        assert roc_auc_score(cases.labels, brightness(cases, modality)) == pytest.approx(0.5, abs=0.06)
    assert roc_auc_score(cases.labels, products(cases)) > 0.999


def test_the_same_seed_gives_the_same_cases_and_another_gives_others() -> None:
    one, same, other = (mechanism_cases("additive", 5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, same.images) and np.array_equal(one.labels, same.labels)
    assert not np.array_equal(one.images, other.images)
