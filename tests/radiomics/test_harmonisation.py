"""ComBat: another implementation's values, simulated batches whose effects are known, and what it refuses."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import UsageError
from pipeline.radiomics.harmonisation import LEAST_CASES, fit_combat

Floats = npt.NDArray[np.float64]


def small() -> tuple[Floats, list[str], Floats]:
    """24 cases of three batches, six features of different scales, and two covariates."""
    rng = np.random.default_rng(5)
    batches = np.array(["a"] * 7 + ["b"] * 9 + ["c"] * 8)
    sex = rng.integers(0, 2, (24, 1)).astype(float)
    covariates = np.hstack([sex, np.round(rng.normal(60, 10, (24, 1)))])
    values = rng.normal(size=(24, 6)) * [1, 2, 3, 10, 0.1, 5] + [0, 5, 100, 3, 2, -7] + sex * [1, 0, 2, 0, 0, 0]
    values[batches == "b"] = values[batches == "b"] * 1.5 + 1
    values[batches == "c"] -= 2
    return values, batches.tolist(), covariates


def test_values_of_neurocombat() -> None:
    """Three cases of `small`, harmonised by neuroCombat 0.2.12 with its tolerance set to 1e-12."""
    values, batches, covariates = small()
    found = fit_combat(values, batches, covariates).apply(values, batches, covariates)
    wanted = [
        [-0.3596463103, 2.676412325, 119.1278317, -5.599893709, 2.160098667, -3.337465558],
        [-1.157440366, 5.815629941, 117.987611, -2.935833825, 2.033447116, -9.962124138],
        [-2.322981987, 4.878234212, 117.0818167, 7.282181847, 2.056228608, -13.19056581],
    ]
    np.testing.assert_allclose(found[[0, 10, 23]], wanted, rtol=1e-8)


@pytest.mark.skipif(importlib.util.find_spec("neuroCombat") is None, reason="neuroCombat is not installed")
def test_all_values_of_neurocombat(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    other = importlib.import_module("neuroCombat.neuroCombat")
    monkeypatch.setattr(other.it_sol, "__defaults__", (1e-12,))
    values, batches, _ = small()
    theirs = other.neuroCombat(values.T.copy(), pd.DataFrame({"batch": batches}), "batch")["data"].T
    np.testing.assert_allclose(fit_combat(values, batches).apply(values, batches), theirs, rtol=1e-8)


def simulated(cases: int, seed: int) -> tuple[Floats, Floats, list[str], Floats]:
    """True values, and the same as two scanners give them; the group, which raises feature 0, is another in each."""
    rng = np.random.default_rng(seed)
    batches = np.where(np.arange(cases) < cases // 2, "one", "two")
    group = (rng.random(cases) < np.where(batches == "one", 0.3, 0.7)).astype(float)[:, None]
    noise, effect = rng.normal(size=(cases, 40)), group * np.eye(40)[0] * 2
    shift, scale = rng.normal(3, 1, 40), rng.uniform(1.5, 3, 40)
    seen = np.where((batches == "two")[:, None], noise * scale + shift, noise)
    return noise + effect, seen + effect, batches.tolist(), group


def test_shift_and_scale_are_removed_and_the_effect_is_kept() -> None:
    true, seen, batches, group = simulated(400, 1)
    found = fit_combat(seen, batches, group).apply(seen, batches, group)
    second = np.array(batches) == "two"
    assert np.abs(seen[second].mean(0) - seen[~second].mean(0)).min() > 0.5
    apart = found[second, 1:].mean(0) - found[~second, 1:].mean(0)
    # what is left is the error of the effect of a group that the scanners do not share alike: 4 standard errors
    assert np.abs(apart / found[:, 1:].std(0)).max() < 0.2
    np.testing.assert_allclose(found[second, 1:].std(0) / found[~second, 1:].std(0), 1, atol=0.15)  # from 1.5 to 3
    raised = group[:, 0] > 0
    assert true[raised, 0].mean() - true[~raised, 0].mean() == pytest.approx(2, abs=0.5)
    assert found[raised, 0].mean() - found[~raised, 0].mean() == pytest.approx(2, abs=0.5)


def test_held_out_cases_are_not_estimated_from() -> None:
    _, seen, batches, _ = simulated(400, 2)
    fitted = fit_combat(seen[::2], batches[::2])
    held, names = seen[1::2], batches[1::2]
    found = fitted.apply(held, names)
    np.testing.assert_array_equal(fitted.apply(held[7:8], names[7:8]), found[7:8])  # whoever is beside it
    moved = fitted.apply(held + 100, names)
    assert (moved - found).min() > 20  # a shift of its own is no batch's, and stays
    apart = found[np.array(names) == "two"].mean(0) - found[np.array(names) == "one"].mean(0)
    assert np.abs(apart / found.std(0)).max() < 0.6  # 100 a batch: 4 standard errors


def test_gaps_stay_gaps_and_the_rest_is_fitted_on_what_is_there() -> None:
    _, seen, batches, _ = simulated(100, 3)
    gaps = seen.copy()
    gaps[[3, 60, 61], [0, 0, 5]] = np.nan
    found = fit_combat(gaps, batches).apply(gaps, batches)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(gaps))
    whole = np.delete(np.arange(100), [3, 60])
    alone = fit_combat(gaps[whole], [batches[row] for row in whole])
    with_gaps = fit_combat(gaps, batches)
    assert with_gaps.mean[0] == pytest.approx(alone.mean[0])
    assert with_gaps.deviation[0] == pytest.approx(alone.deviation[0])


def test_features_constant_in_a_batch_are_left_and_said() -> None:
    _, seen, batches, _ = simulated(60, 4)
    seen[:30, 2] = 7.0
    seen[:, 3] = 1.0
    seen[1:30, 4] = np.nan
    fitted = fit_combat(seen, batches)
    assert np.flatnonzero(~fitted.harmonised).tolist() == [2, 3, 4]
    np.testing.assert_array_equal(fitted.apply(seen, batches)[:, 2:5], seen[:, 2:5])


def test_twin_features_have_no_scatter_and_are_no_matter() -> None:
    """The prior's variance is 0 then: every feature has the mean of all, which is its own."""
    rng = np.random.default_rng(6)
    column = rng.normal(size=(30, 1))
    batches = ["a"] * 15 + ["b"] * 15
    fitted = fit_combat(np.hstack([column, column]), batches)
    own = [(column[part] - column.mean()) / fitted.deviation[0] for part in (slice(0, 15), slice(15, 30))]
    np.testing.assert_allclose(fitted.shift[:, 0], [item.mean() for item in own], atol=1e-9)
    np.testing.assert_allclose(fitted.spread[:, 0], [item.var(ddof=1) for item in own], rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches": ["one"] * 60}, "two or more batches, got one"),
        ({"batches": ["one"] * 57 + ["two"] * 3}, f"{LEAST_CASES} or more training cases of each batch, got of two 3"),
        ({"covariates": np.repeat([[0.0], [1.0]], 30, 0)}, "batches determine"),
        ({"covariates": np.full((60, 1), np.nan)}, "all finite"),
        ({"values": np.ones((60, 4))}, "vary in every batch, got 0 of 4"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, object], said: str) -> None:
    _, seen, batches, _ = simulated(60, 5)
    with pytest.raises(UsageError, match=said) as caught:
        fit_combat(**({"values": seen, "batches": batches} | change))  # type: ignore[arg-type]
    assert caught.value.code == "E_BATCH"


def test_a_batch_that_was_not_fitted_is_refused_with_those_known() -> None:
    _, seen, batches, _ = simulated(60, 5)
    fitted = fit_combat(seen, batches)
    with pytest.raises(UsageError, match=r"E_BATCH.*\(one, two\), got tow. Did you mean two\?|E_BATCH.*one, two.*tow"):
        fitted.apply(seen[:1], ["tow"])
    with pytest.raises(UsageError, match="E_BATCH"):
        fitted.apply(seen, batches, np.ones((60, 1)))
    with pytest.raises(UsageError, match="E_ROWS"):
        fit_combat(seen, batches[1:])
