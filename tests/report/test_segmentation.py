"""The chart of outlines: images of one grid are one grid, whatever the order of their axes."""

from __future__ import annotations

import numpy as np
import pytest
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.report.segmentation import outline_chart
from pipeline.volumes import volume

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def as_lps(image: MetaTensor) -> MetaTensor:
    """The same image in space, with its first two axes the other way round."""
    size = image.shape[1:]
    affine = AFFINE @ np.array([[-1, 0, 0, size[0] - 1], [0, -1, 0, size[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    return volume(image.as_tensor().flip(1, 2), affine)


def test_the_order_of_the_axes_changes_nothing_and_another_place_is_refused() -> None:
    values = np.random.default_rng(0).normal(size=(1, 12, 10, 6)).astype(np.float32)
    inside = np.zeros((1, 12, 10, 6), np.uint8)
    inside[0, 2:5, 3:8, 2:4] = 1
    image, truth = volume(values, AFFINE), volume(inside, AFFINE)
    drawn = outline_chart("example", "An example", {"CT": image}, truth, {"early": truth})
    turned = outline_chart("example", "An example", {"CT": as_lps(image)}, truth, {"early": as_lps(truth)})
    assert drawn.png == turned.png
    elsewhere = volume(values, AFFINE + np.array([[0, 0, 0, 5.0], *np.zeros((3, 4))]))
    with pytest.raises(CaseError, match="CT") as refused:
        outline_chart("example", "An example", {"CT": elsewhere}, truth, {})
    assert refused.value.code == "E_GRID"
