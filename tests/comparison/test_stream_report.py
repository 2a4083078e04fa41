"""The report of the controls: losses by shuffling against the true posterior, and the sentences beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.comparison.stream_controls import ControlFindings
from pipeline.comparison.stream_report import PLAIN, auroc_of, control_sentences, controls_table, shuffle_table
from pipeline.evaluation.classification import evaluate
from pipeline.evaluation.results import Predictions, Settings, predictions
from tests.phantoms.streams.cues import Cues, Mechanism, draw_cues

SETTINGS = Settings(resamples=200)


def ideal(cues: Cues) -> Predictions:
    """What a perfect network of patients' cases says of cases."""
    return predictions(replace(cues, pairing="patient").posterior, cues.labels)


def shuffled(cues: Cues, within: bool) -> Cues:
    """The second stream from another case."""
    order, random = np.arange(len(cues.labels)), np.random.default_rng(7)
    for label in np.unique(cues.labels) if within else [None]:
        inside = order if label is None else np.flatnonzero(cues.labels == label)
        order = order.copy()
        order[inside] = random.permutation(inside)
    shown = cues.shown.copy()
    shown[:, 1] = shown[order, 1]
    return replace(cues, shown=shown)


def losses(mechanism: Mechanism) -> dict[str, float]:
    cues = draw_cues(mechanism, 2, 2, 3000, np.random.default_rng(0))
    both = {("mr", way): ideal(shuffled(cues, way == "within")) for way in ("within", "across")}
    table = shuffle_table(ideal(cues), both, SETTINGS)  # type: ignore[arg-type]
    assert [row[0] for row in table.rows] == [PLAIN, "mr, within the class", "mr, across classes"]
    assert table.rows[0][2:] == ("", "", "")
    return {row[0]: float(row[2].replace("−", "-")) for row in table.rows[1:]}


def test_what_has_used_the_patient_falls_within_the_class_and_what_has_not_does_not() -> None:
    exclusive, additive = losses("exclusive"), losses("additive")
    assert exclusive["mr, within the class"] >= 0.3 and exclusive["mr, across classes"] >= 0.3
    assert abs(additive["mr, within the class"]) <= 0.01
    assert additive["mr, across classes"] > 0.05


def findings() -> ControlFindings:
    cues = draw_cues("additive", 4, 1, 300, np.random.default_rng(1))
    good = predictions(cues.posterior, cues.labels, name="x")
    chance = predictions(np.full((300, 4), 0.25), cues.labels)
    found = evaluate({"File facts": chance, "Thumbnail": good}, SETTINGS)
    return ControlFindings(found, found)


def test_the_table_has_both_kinds_of_folds() -> None:
    found = findings()
    rows = controls_table(found).rows
    assert [row[:2] for row in rows] == [
        (name, folds) for folds in ("by patient", "case by case") for name in ("File facts", "Thumbnail")
    ]
    assert rows[0][2] == "0.500" and " to " in rows[1][2] and auroc_of(found.by_patient[0]).of == "macro average"


def test_sentences_say_what_is_explained_and_paired() -> None:
    found = findings()
    area = auroc_of(found.by_patient[1]).value or 0
    said = control_sentences(found, 0.9, class_paired=True)
    assert said[0].startswith("N_CLASS_PAIRED") and "No strategy of fusion can beat it" in said[0]
    assert said[1].endswith("AUROC 0.500, no better than chance; the best network has 0.900.")
    assert f"{(area - 0.5) / 0.4:.0%} of what the best network" in said[2]
    beaten = control_sentences(found, area - 0.01)[1]
    assert beaten.endswith("or more: it has to be beaten first.")
    assert len(said) == 5 and "by patient 0.500" in said[3]
    plain = control_sentences(replace(found, random=()))
    assert len(plain) == 2 and plain[0] == "File facts alone: AUROC 0.500."


@pytest.mark.parametrize("reached", [0.5, 0.45])
def test_a_network_at_chance_has_nothing_to_be_explained(reached: float) -> None:
    said = control_sentences(replace(findings(), random=()), reached)
    assert not any("best network" in text for text in said)
