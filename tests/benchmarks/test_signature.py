"""Signatures: what is planted is found, noise gives chance, held-out cases teach nothing."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import scripts.radiomics_signature as script
from benchmarks.signature.nested import Concordance, Design, dealt, nested, tuned
from benchmarks.signature.regression import weights_of
from benchmarks.signature.selection import Training
from benchmarks.signature.signature import permutation_null, shuffled, signature, stability
from benchmarks.signature.table import Outcome
from pipeline.errors import UsageError
from pipeline.evaluation.intervals import delong
from tests.benchmarks.cohorts import cohort_of, noise, planted, write

Floats = npt.NDArray[np.float64]
QUICK = Design(repeats=1, permutations=0, sizes=(1, 2, 4))
needs_lifelines = pytest.mark.skipif(importlib.util.find_spec("lifelines") is None, reason="lifelines is not installed")


def test_what_is_planted_is_found_and_beats_the_volume() -> None:
    cohort = planted(150, 0)
    design = QUICK.model_copy(update={"permutations": 9, "sizes": (1, 2), "folds": 4, "inner_folds": 2})
    found = signature(cohort, design, ["f0", "f3"])
    best, volume, one = found.measured
    assert best.name == "signature" and 0.8 < best.value < 0.95
    assert best.interval.low is not None and best.interval.low > 0.7
    assert abs(volume.value - 0.5) < 0.12 and volume.less == pytest.approx(best.value - volume.value)
    assert volume.less_interval is not None and volume.less_interval.low is not None and volume.less_interval.low > 0.1
    assert 0.65 < one.value < best.value
    assert found.chosen[[3, 11, 12]].sum() > 1.5 and found.chosen[11] + found.chosen[12] <= 1
    assert found.p_value == 1 / 10 and abs(found.null.mean() - 0.5) < 0.06
    assert found.stability is not None and found.stability > 0.5
    assert set(found.final.columns.tolist()) & {3, 11, 12} and (found.final.weights > 0).all()


@pytest.mark.parametrize("method", ["mrmr", "l1"])
def test_noise_gives_chance_and_choosing_on_all_cases_does_not(method: str) -> None:
    inside, outside = [], []
    design = Design.model_validate({"select": method, "repeats": 1, "sizes": (4,)})
    for seed in range(16):
        cohort = noise(50, 200, seed)
        found = nested(cohort, design)
        inside.append(found.concordance(cohort).value)
        chosen = Training.of(cohort).order(design.select, 4, 0.9)
        leaky = cohort_of(cohort.values[:, chosen], cohort.outcome.event)
        outside.append(nested(leaky, design, found.folds).concordance(leaky).value)
    error = np.std(inside) / len(inside) ** 0.5
    assert abs(np.mean(inside) - 0.5) < 3 * error and error < 0.04
    assert np.mean(outside) > 0.65


def test_p_values_of_noise_are_as_good_as_uniform() -> None:
    design = QUICK.model_copy(update={"permutations": 9, "sizes": (1,), "folds": 2})
    values = []
    for seed in range(30):
        cohort = noise(24, 10, seed)
        null = permutation_null(cohort, design)
        observed = nested(cohort, design).concordance(cohort).value
        values.append((1 + (null >= observed).sum()) / 10)
    assert np.mean(values) == pytest.approx(0.55, abs=3 * 0.29 / 30**0.5)
    assert np.mean(np.array(values) <= 0.2) < 0.2 + 3 * (0.16 / 30) ** 0.5


def test_held_out_cases_teach_nothing() -> None:
    """Whatever the held-out fold's features and outcome are, the signature and others' scores stay."""
    cohort = planted(60, 1)
    fold = dealt(cohort, 5, np.random.default_rng(0))[:, None]
    first = nested(cohort, QUICK, fold)
    held = fold[:, 0] == 0
    values = np.where(held[:, None], np.random.default_rng(1).normal(1e6, 1e5, cohort.values.shape), cohort.values)
    other = nested(replace(cohort, values=values), QUICK, fold)
    np.testing.assert_array_equal(first.chosen[0], other.chosen[0])
    assert (first.scores[held] != other.scores[held]).all()
    gaps = cohort.values.copy()
    gaps[held] = np.nan
    filled = nested(replace(cohort, values=gaps), QUICK, fold)
    assert len(set(filled.scores[held, 0])) == 1  # all have the training medians


def test_patients_stay_together_and_folds_are_alike() -> None:
    rng = np.random.default_rng(2)
    patients = np.sort(np.concatenate([np.arange(40), rng.integers(0, 40, 60)]))
    event = (np.arange(40) % 4 == 0)[patients]
    cohort = cohort_of(rng.normal(size=(100, 3)), event, patients=patients)
    folds = dealt(cohort, 5, rng)
    assert all(len(set(folds[patients == number])) == 1 for number in range(40))
    assert [len(set(patients[folds == number])) for number in range(5)] == [8] * 5
    assert [len(set(patients[(folds == number) & event])) for number in range(5)] == [2] * 5
    batches = tuple(np.where(np.arange(40) % 2 == 0, "a", "b")[patients])
    both = dealt(replace(cohort, batches=batches), 5, rng)
    assert all(len(set(patients[(both == number) & (np.array(batches) == "b")])) == 4 for number in range(5))


def test_a_patients_twins_in_training_would_be_learned_by_heart() -> None:
    """Two cases each with the same noise: only folds of patients give chance."""
    inside = []
    for seed in range(8):
        one = noise(30, 100, seed)
        values = np.repeat(one.values, 2, 0) + 0.01 * np.random.default_rng(seed).normal(size=(60, 100))
        event = np.repeat(one.outcome.event, 2)
        twins = cohort_of(values, event, patients=np.repeat(np.arange(30), 2))
        inside.append(nested(twins, QUICK.model_copy(update={"sizes": (2,)})).concordance(twins).value)
    assert np.mean(inside) == pytest.approx(0.5, abs=0.1)


def test_shuffled_outcomes_stay_with_patients() -> None:
    patients = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    rng = np.random.default_rng(0)
    same = cohort_of(np.zeros((8, 1)), np.array([1, 1, 0, 1, 1, 1, 0, 0], bool), patients=patients)
    seen = {tuple(shuffled(same, rng).outcome.event.tolist()) for _ in range(60)}
    assert len(seen) == 10  # two of five patients
    assert all(row[0] == row[1] and row[3] == row[4] == row[5] for row in seen)
    mixed = replace(same, outcome=Outcome(np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)))
    seen = {tuple(shuffled(mixed, rng).outcome.event.tolist()) for _ in range(60)}
    assert len(seen) == 3  # only those with one case change places
    timed = replace(same, outcome=Outcome(same.outcome.event, np.arange(8.0)))
    found = shuffled(timed, rng).outcome
    assert found.time is not None
    assert {(t, e) for t, e in zip(found.time, found.event, strict=True)} == set(enumerate(same.outcome.event))


def test_auroc_and_c_index_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    scores, event = np.round(rng.normal(size=60), 1), rng.random(60) < 0.4
    folds = np.zeros((60, 1), int)
    one = Concordance.of(Outcome(event).pairs(), scores[:, None], folds)
    assert one.value == pytest.approx(delong(scores, event).values[0])
    # Harrell's by hand: events at 1 and 3, one lost at 2; pairs (0,1), (0,2), (0,3), (2,3)
    outcome = Outcome(np.array([True, False, True, False]), np.array([1.0, 2.0, 3.0, 3.0]))
    found = Concordance.of(outcome.pairs(), np.array([[3.0], [2.0], [3.0], [4.0]]), folds[:4])
    assert found.pairs.sum() == 4 and found.value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    doubled = found.weighted(np.array([[1.0, 1, 1, 1], [2.0, 1, 0, 1]]))
    np.testing.assert_allclose(doubled, [1.5 / 4, 2 / 4])


@needs_lifelines
def test_c_index_is_that_of_lifelines() -> None:
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(5)
    time, event, scores = np.ceil(rng.exponential(10, 50)), rng.random(50) < 0.6, rng.normal(size=50)
    found = Concordance.of(Outcome(event, time).pairs(), scores[:, None], np.zeros((50, 1), int))
    tied = [(a, b) for a in range(50) for b in range(a) if time[a] == time[b] and event[a] and event[b]]
    if not tied:
        assert found.value == pytest.approx(concordance_index(time, -scores, event))
    apart = time + np.arange(50) * 1e-4
    found = Concordance.of(Outcome(event, apart).pairs(), scores[:, None], np.zeros((50, 1), int))
    assert found.value == pytest.approx(concordance_index(apart, -scores, event))


def test_planted_survival_is_found() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(90, 25))
    time, lost = rng.exponential(np.exp(-1.5 * values[:, 4])), rng.exponential(2, 90)
    cohort = cohort_of(values, time <= lost, outcome=Outcome(time <= lost, np.minimum(time, lost)))
    found = signature(cohort, Design(repeats=1, permutations=3, sizes=(1, 2), inner_folds=2), ["f0"])
    assert found.measured[0].value > 0.75 and found.chosen[4] == 1 and found.final.columns[0] == 4
    assert found.final.weights[0] > 0.8 and abs(found.measured[1].value - 0.5) < 0.15
    assert found.null.max() < found.measured[0].value


def test_a_feature_alone_is_judged_as_it_is() -> None:
    """Its direction is not learned: what lowers the odds lies below .5 by as much as its opposite lies above."""
    cohort = planted(90, 2)
    values = np.hstack([cohort.values, -cohort.values[:, 3:4]])
    both = replace(cohort, values=values, features=(*cohort.features, "opposite"))
    _, one, other = signature(both, QUICK.model_copy(update={"sizes": (1,)}), ["f3", "opposite"]).measured
    assert one.value > 0.65 and one.value + other.value == pytest.approx(1)
    area = delong(cohort.values[:, 3], cohort.outcome.event).values[0]
    assert one.value == pytest.approx(area, abs=0.05)  # pairs of one fold are some of all


def test_residuals_are_those_of_the_null_model() -> None:
    """Hazards 1/4, 1/2 at the events of times 1 and 3 of four cases."""
    outcome = Outcome(np.array([True, False, True, False]), np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(outcome.response(), [1 - 1 / 4, -1 / 4, 1 - 3 / 4, -3 / 4])


def test_order_of_choice() -> None:
    """The nearest to the outcome first; its near twin not at all; then what is new before what is known."""
    rng = np.random.default_rng(7)
    event = rng.random(400) < 0.5
    first, second = event + 0.5 * rng.normal(size=400), event + rng.normal(size=400)
    twin, alike = first + 0.02 * rng.normal(size=400), first + 0.5 * rng.normal(size=400)
    values = np.stack([rng.normal(size=400), alike, second, twin, first, np.full(400, 3.0)], 1)
    training = Training.of(cohort_of(values, event))
    order = training.order("mrmr", 3, 0.9).tolist()
    assert order[0] in (3, 4) and order[1] == 2
    every = training.order("mrmr", 10, 0.9).tolist()
    assert len(every) == 4 and 5 not in every and len({3, 4} & set(every)) == 1
    lasso = training.order("l1", 2, 0.9).tolist()
    assert lasso[0] in (3, 4) and lasso[1] == 2


def test_order_of_the_lasso_is_that_of_its_first_steps() -> None:
    """With orthogonal features the lasso's path takes them by their correlation with the outcome."""
    rng = np.random.default_rng(8)
    values, _ = np.linalg.qr(rng.normal(size=(40, 6)))
    cohort = cohort_of(values, rng.random(40) < 0.5)
    training = Training.of(cohort)
    told = np.abs(training.ranks.T @ (cohort.outcome.event - cohort.outcome.event.mean()))
    assert training.order("l1", 2, 1.0)[0] == told.argmax() == training.order("mrmr", 2, 1.0)[0]


@pytest.mark.parametrize("ridge", [0.01, 2.0])
def test_weights_are_those_of_scikit_learn(ridge: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(9)
    table, event = rng.normal(size=(50, 3)), rng.random(50) < 0.4
    wanted = LogisticRegression(C=1 / ridge, tol=1e-10, solver="newton-cholesky").fit(table, event).coef_[0]
    np.testing.assert_allclose(weights_of(table, Outcome(event), ridge), wanted, rtol=1e-5)
    parted = weights_of(np.where(event, 9.0, -9.0)[:, None], Outcome(event), 1e-3)
    assert 0.1 < parted[0] < 10  # no infinite weight where a feature parts the classes


def survival(cases: int, seed: int) -> tuple[Floats, Outcome]:
    """Times with many ties, a third of them lost; lifelines penalises what is standardised so."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(cases, 3))
    time, lost = rng.exponential(np.exp(-table[:, 0])), rng.exponential(2, cases)
    table = (table - table.mean(0)) / table.std(0, ddof=1)
    return table, Outcome(time <= lost, np.ceil(8 * np.minimum(time, lost)))


def test_weights_of_cox_are_those_of_lifelines() -> None:
    """lifelines 0.30.3, CoxPHFitter(penalizer=ridge / 40).fit(…, fit_options={"precision": 1e-12})."""
    table, outcome = survival(40, 1)
    assert outcome.time is not None and len(np.unique(outcome.time)) < 25
    found = [weights_of(table, outcome, ridge) for ridge in (0.001, 4.0)]
    np.testing.assert_allclose(
        found, [[1.02846481, 0.157507584, -0.142780103], [0.801027899, 0.117776747, -0.0813494255]], rtol=1e-6
    )


@needs_lifelines
def test_more_weights_of_cox_are_those_of_lifelines() -> None:
    import pandas as pd
    from lifelines import CoxPHFitter

    for seed in range(2, 6):
        table, outcome = survival(40, seed)
        frame = pd.DataFrame(table).assign(time=outcome.time, event=outcome.event)
        wanted = CoxPHFitter(penalizer=1 / 40).fit(frame, "time", "event", fit_options={"precision": 1e-12}).params_
        np.testing.assert_allclose(weights_of(table, outcome, 1.0), wanted, rtol=1e-5)


def test_gaps_have_the_training_median_and_are_counted() -> None:
    cohort = planted(60, 3)
    values = cohort.values.copy()
    values[[1, 5], 3] = np.nan
    values[:, 7] = np.nan
    values[:, 8] = 4.0
    values[:58, 9] = 4.0
    found = signature(replace(cohort, values=values), QUICK)
    assert found.missing[3] == 2 and found.missing[7] == 60
    assert (found.chosen[[7, 8, 9]] == 0).all()
    assert found.final.training.medians[3] == np.nanmedian(values[:, 3])
    assert np.isfinite(found.nested.scores).all()


def test_batches_are_harmonised_on_the_training_cases_of_each_split() -> None:
    """A scanner that shifts all features by far hides the signal, and is taken out."""
    cohort = planted(120, 4)
    batches = tuple(np.where(np.arange(120) % 2 == 0, "a", "b"))
    moved = replace(cohort, values=cohort.values + 60 * (np.arange(120) % 2)[:, None])
    plain = nested(moved, QUICK).concordance(moved).value
    known = replace(moved, batches=batches)
    found = nested(known, QUICK)
    assert found.concordance(known).value > 0.8 > plain + 0.03
    fitted = tuned(known.of(np.arange(120) < 80), QUICK, np.random.default_rng(0)).training.combat
    assert fitted is not None and fitted.batches == ("a", "b")
    with pytest.raises(UsageError, match="E_BATCH"):
        nested(replace(moved, batches=("a",) * 118 + ("b",) * 2), QUICK)


def test_stability_of_choices() -> None:
    """Nogueira's: 1 for the same choice, about 0 for random ones, and a value by hand."""
    same = np.tile(np.arange(10) < 3, (5, 1))
    assert stability(same) == 1
    rng = np.random.default_rng(0)
    drawn = np.array([np.isin(np.arange(50), rng.choice(50, 5, replace=False)) for _ in range(200)])
    assert stability(drawn) == pytest.approx(0, abs=0.02)
    # shares 1, 1/2, 1/2, 0 of two choices: spread 2 * (1/4 + 1/4) / 4 = 1/4; usual 1/2 * 1/2
    assert stability(np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)) == pytest.approx(0)
    assert stability(np.zeros((3, 4), bool)) is None and stability(same[:1]) is None


def test_too_few_patients_of_a_class_are_refused() -> None:
    cohort = noise(40, 5, 0)
    few = replace(cohort, outcome=Outcome(np.arange(40) < 4))
    with pytest.raises(UsageError, match=r"E_FOLD.*5 or more patients of class 1 for 5 folds, got 4"):
        signature(few, QUICK)
    with pytest.raises(UsageError, match=r"E_FOLD.*class 0"):
        signature(replace(cohort, outcome=Outcome(np.arange(40) >= 4)), QUICK)
    with pytest.raises(UsageError, match=r"E_FOLD.*6 or more"):
        signature(replace(cohort, outcome=Outcome(np.arange(40) < 5)), QUICK.model_copy(update={"folds": 2}))
    with pytest.raises(UsageError, match=r"E_TABLE.*f99"):
        signature(cohort, QUICK, ["f99"])


def test_the_script_writes_the_same_files_again(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(script.main)
    cohort = planted(60, 8)
    volume = {"morph_volume": np.random.default_rng(0).normal(size=60).tolist()}
    table = write(tmp_path / "features.csv", cohort, volume)
    quick = ["--outcome", "outcome", "--permutations", "2", "--repeats", "1", "--baseline", "f3"]
    done = [CliRunner().invoke(app, [str(table), "--out", str(tmp_path / name), *quick]) for name in "ab"]
    assert [item.exit_code for item in done] == [0, 0], done[0].output
    names = ("signature.json", "signature.md", "features.csv", "scores.csv")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    plain = json.loads((tmp_path / "a" / "signature.json").read_text())
    assert [item["name"] for item in plain["measured"]] == ["signature", "morph_volume", "f3"]
    assert plain["cases"] == 60 and plain["features"] == 61 and plain["measure"] == "AUROC"
    page = (tmp_path / "a" / "signature.md").read_text()
    assert f"| signature | {plain['measured'][0]['value']:.3f} |" in page and "p = " in page
    assert max(map(len, page.splitlines())) <= 160
    scores = list(csv.DictReader((tmp_path / "a" / "scores.csv").open()))
    assert len(scores) == 60 and {row["fold_1"] for row in scores} == set("01234")
    wrong = CliRunner().invoke(app, [str(table), "--out", str(tmp_path / "c"), "--outcome", "outcom"])
    assert wrong.exit_code == 2 and "E_TABLE" in wrong.output and not (tmp_path / "c").exists()
    wrong = CliRunner().invoke(app, [str(table), "--out", str(tmp_path / "c"), "--outcome", "outcome", "--select", "x"])
    assert wrong.exit_code == 2 and "E_OPTION" in wrong.output
