from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices


def refusal(call) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call()
    return caught.value


def test_one_column_is_the_probability_of_class_1():
    expected = [[0.75, 0.25], [0.0, 1.0]]
    assert class_probabilities([0.25, 1.0]).tolist() == expected
    assert class_probabilities([[0.25], [1.0]]).tolist() == expected


def test_rows_are_not_rescaled():
    table = np.array([[0.2, 0.3, 0.501], [1.0, 0.0, 0.0]], dtype=np.float32)
    assert np.array_equal(class_probabilities(table), table.astype(np.float64))


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ([0.5, np.nan], "E_PROBABILITY", "row 2"),
        ([[0.5, 0.5], [np.inf, 0.0]], "E_PROBABILITY", "row 2"),
        ([0.5, 0.2, 1.0001], "E_PROBABILITY", "row 3"),
        ([[0.5, 0.5], [1.1, -0.1]], "E_PROBABILITY", "row 2"),
        ([[0.5, 0.5], [0.5, 0.49]], "E_PROBABILITY", "0.99 in row 2"),
        ([], "E_ROWS", "(0,)"),
        ([[[0.5]]], "E_ROWS", "(1, 1, 1)"),
    ],
)
def test_what_is_no_probability_is_refused(values, code, words):
    error = refusal(lambda: class_probabilities(values, "model.npy"))
    assert error.code == code and words in error.message and error.message.startswith("model.npy")


def test_labels_may_be_floats_but_whole():
    labels = class_labels(np.array([[0.0], [2.0]]), (2, 3))
    assert labels.tolist() == [0, 2] and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "code", "words"),
    [
        ([0, 1], "E_ROWS", "Expected 3 labels"),
        ([0, 1, 3], "E_LABEL", "got 3 in row 3"),
        ([0, -1, 1], "E_LABEL", "row 2"),
        ([0, 0.5, 1], "E_LABEL", "row 2"),
        ([0, 1, np.nan], "E_LABEL", "row 3"),
        (["a", "b", "c"], "E_LABEL", "whole numbers"),
    ],
)
def test_what_is_no_label_is_refused(labels, code, words):
    error = refusal(lambda: class_labels(labels, (3, 3)))
    assert error.code == code and words in error.message


def test_groups_are_numbered_as_they_appear():
    assert group_indices(["b", "a", "b", "c"], 4).tolist() == [0, 1, 0, 2]
    assert group_indices(None, 3).tolist() == [0, 1, 2]
    assert refusal(lambda: group_indices(["a"], 2)).code == "E_ROWS"
