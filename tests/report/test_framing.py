"""What is shown: canonical axes, the body's box, an image on another grid by its header."""

import numpy as np
import pytest
from monai.transforms import Orientation

from pipeline.geometry import apply
from pipeline.report.slices import body_frame, plane_slice, through_headers, voxels
from pipeline.volumes import affine_of, oriented, volume


def test_headers_alone_put_a_point_where_it_is(pair, the_scene):
    ct, mr = pair
    moved = voxels(through_headers(mr, ct))
    index = np.argwhere(np.ones(ct.shape[1:], bool))
    truth = the_scene(apply(affine_of(ct), index), 300, 2, 900).reshape(moved.shape)
    # Linear interpolation softens edges only: away from them the values are the scene's own.
    flat = np.abs(moved - truth) < 1
    assert flat.mean() > 0.85
    cube = np.argwhere(truth == 900).mean(axis=0)
    assert np.abs(np.argwhere(moved > 600).mean(axis=0) - cube).max() < 0.3
    assert moved[tuple(np.round(cube).astype(int))] == pytest.approx(900)


def test_outside_the_field_of_view_is_the_minimum(pair):
    ct, mr = pair
    far = volume(mr.numpy(), np.diag([1, 1, 1, 1.0]) @ affine_of(mr) + np.array([[0, 0, 0, 500.0]] + [[0] * 4] * 3))
    assert (voxels(through_headers(far, ct)) == 2).all()


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SAL"])
def test_any_axes_give_the_same_picture(pair, axes):
    ct, _ = pair
    frame = body_frame(ct, "CT")
    turned = Orientation(axcodes=axes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(ct)
    assert turned.shape != ct.shape or axes == "LPS"
    for plane in ("axial", "coronal", "sagittal"):
        assert (plane_slice(voxels(oriented(turned)), plane, frame) == plane_slice(voxels(ct), plane, frame)).all()


def test_frame_is_the_body_with_a_margin():
    array = np.full((60, 50, 40), -1000.0)
    array[20:44, 10:30, 12:36] = 40.0
    frame = body_frame(volume(array, np.diag([2.0, 2.0, 2.0, 1.0])), "CT")
    # The box is found on a 4 mm grid; the margin is 8 mm, 4 voxels here.
    assert np.abs(np.subtract(frame.low, (16, 6, 8))).max() <= 2
    assert np.abs(np.subtract(frame.high, (48, 34, 40))).max() <= 2
    assert np.abs(np.subtract(frame.centre, (32, 20, 24))).max() <= 2


def test_planes_move_to_where_the_moving_image_is(pair):
    ct, _ = pair
    small = np.zeros(ct.shape)
    small[0, 24:34, 15:25, 18:24] = 5.0
    frame = body_frame(ct, "CT", volume(small, affine_of(ct)))
    assert frame.centre[2] == 21
    centred = body_frame(
        ct, "CT", volume(np.pad(np.ones((1, 38, 42, 28)), [(0, 0), (1, 1), (1, 1), (1, 1)]), affine_of(ct))
    )
    assert centred == body_frame(ct, "CT")


def test_a_blank_image_still_has_a_frame(pair):
    ct, _ = pair
    blank = volume(np.zeros(ct.shape), affine_of(ct))
    frame = body_frame(blank, "CT", blank)
    assert (frame.low, frame.high) == ((0, 0, 0), tuple(ct.shape[1:]))
