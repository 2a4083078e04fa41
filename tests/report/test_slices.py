"""Where a voxel is drawn, exactly."""

import numpy as np
import pytest
from skimage.transform import resize

from pipeline.report.slices import (
    LETTERS,
    Frame,
    checkerboard,
    outline,
    overlay,
    plane_slice,
    plane_spacing,
    robust_window,
    to_label_pixels,
    to_pixels,
    windowed,
)

SHAPE = (5, 7, 9)


def whole(centre):
    return Frame(centre, (0, 0, 0), SHAPE)


# A voxel at the patient's right (i large), front (j large), head (k large) of the grid, and where it has to appear.
@pytest.mark.parametrize(
    ("plane", "shape", "row", "column"),
    [("axial", (7, 5), 1, 0), ("coronal", (9, 5), 2, 0), ("sagittal", (9, 7), 2, 1)],
)
def test_right_front_head_is_drawn_left_and_up(plane, shape, row, column):
    array = np.zeros(SHAPE)
    array[4, 5, 6] = 1
    picture = plane_slice(array, plane, whole((4, 5, 6)))
    assert picture.shape == shape
    assert np.argwhere(picture == 1).tolist() == [[row, column]]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_edges_are_the_letters(plane):
    """Each edge of the picture holds the voxels that are outermost in the direction its letter names."""
    directions = {"R": (0, 4), "L": (0, 0), "A": (1, 6), "P": (1, 0), "S": (2, 8), "I": (2, 0)}
    index = np.stack(np.indices(SHAPE))
    cuts = [plane_slice(index[axis], plane, whole((2, 3, 4))) for axis in range(3)]
    edges = (np.s_[:, 0], np.s_[:, -1], np.s_[0], np.s_[-1])
    for letter, edge in zip(LETTERS[plane], edges, strict=True):
        axis, outermost = directions[letter]
        assert (cuts[axis][edge] == outermost).all()


def test_crop_and_plane_follow_the_frame():
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    picture = plane_slice(array, "axial", Frame((0, 0, 5), (1, 2, 3), (4, 6, 8)))
    expected = [[array[i, j, 5] for i in (3, 2, 1)] for j in (5, 4, 3, 2)]
    assert picture.tolist() == expected


@pytest.mark.parametrize(
    ("plane", "expected"), [("axial", (1.5, 1.0)), ("coronal", (4.0, 1.0)), ("sagittal", (4.0, 1.5))]
)
def test_spacing_between_rows_and_columns(plane, expected):
    assert plane_spacing((1.0, 1.5, 4.0), plane) == expected


def test_pixels_are_square_in_mm():
    image = np.zeros((10, 20))
    image[4:6, 5:15] = 1.0
    pixels = to_pixels(image, (3.0, 1.0), 0.5)
    assert pixels.shape == (60, 40)
    bright = np.argwhere(pixels > 0.5)
    # 6 mm high and 10 mm wide, from 12 mm below the top and 5 mm from the left.
    assert bright.min(axis=0).tolist() == [24, 10]
    assert bright.max(axis=0).tolist() == [35, 29]


@pytest.mark.parametrize("pixel_mm", [0.4, 1.0])
def test_pixels_are_those_of_scikit_image(pixel_mm):
    image = np.random.default_rng(0).normal(size=(23, 31))
    found = to_pixels(image, (3.0, 1.2), pixel_mm)
    np.testing.assert_allclose(found, resize(image, found.shape, order=1, mode="edge"), atol=1e-6)


def test_labels_are_not_mixed():
    labels = np.array([[1, 3], [5, 7]])
    assert to_label_pixels(labels, (2.0, 1.0), 0.5).tolist() == [[1, 1, 3, 3]] * 4 + [[5, 5, 7, 7]] * 4


def test_an_outline_is_two_pixels_thick_and_inside():
    inside = np.zeros((9, 9), bool)
    inside[1:8, 1:8] = True
    expected = inside.copy()
    expected[3:6, 3:6] = False
    assert (outline(inside) == expected).all()


def test_checkerboard_alternates_exactly():
    first, second = np.zeros((5, 8), int), np.ones((5, 8), int)
    expected = [
        [0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 1],
        [1, 1, 1, 0, 0, 0, 1, 1],
    ]
    assert checkerboard(first[..., None], second[..., None], 3)[..., 0].tolist() == expected


def test_checkerboard_keeps_positions():
    first = np.arange(16.0).reshape(4, 4)
    board = checkerboard(first[..., None], -first[..., None], 2)[..., 0]
    assert board.tolist() == [[0, 1, -2, -3], [4, 5, -6, -7], [-8, -9, 10, 11], [-12, -13, 14, 15]]


def test_windows():
    values = np.array([-1000, -160, 40, 240, 3000, np.nan, np.inf])
    assert windowed(values, (-160.0, 240.0)).tolist() == [0, 0, 0.5, 1, 1, 0, 1]


def test_robust_window_leaves_padding_out():
    values = np.concatenate([np.full(9000, -7.0), np.linspace(100, 200, 1001)])
    low, high = robust_window(values)
    assert low == pytest.approx(101.0)
    assert high == pytest.approx(199.5)
    assert robust_window(np.full(5, 3.0)) == (3.0, 4.0)


def test_overlay_is_grey_where_moving_is_dark():
    grey = np.array([[0.2, 0.8, 0.8]])
    moving = np.array([[0.0, 0.0, 1.0]])
    colours = np.array([[0, 0, 0], [1.0, 0.5, 0.0]])
    mixed = overlay(np.repeat(grey[..., None], 3, axis=2), moving, colours, alpha=0.25)
    assert mixed[0, 0].tolist() == [0.2] * 3
    assert mixed[0, 1].tolist() == [0.8] * 3
    assert mixed[0, 2] == pytest.approx([0.85, 0.725, 0.6])
