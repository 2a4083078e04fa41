from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from pipeline.evaluation.results import Predictions, predictions


def draw(count: int, classes: int, seed: int, decimals: int = 12, strength: float = 1.2) -> Predictions:
    """Skilled predictions of classes of unequal size; few decimals make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    table = softmax(strength * np.eye(classes)[labels] + generator.normal(size=(count, classes)), axis=1)
    # rounded down, what is left goes to class 0: rows keep their sum, and none is negative
    table = np.floor(table * 10.0**decimals) / 10.0**decimals
    table[:, 0] = 1 - table[:, 1:].sum(axis=1)
    return predictions(table, labels)


@pytest.fixture
def drawn():
    return draw
