"""The drawn sheets: scale, aspect, placement, and the pixels themselves."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CaseError
from pipeline.report import pictures
from pipeline.report.figures import Channel, alignment_figure, gallery_figure, thumbnail
from pipeline.report.framing import body_frame
from pipeline.report.pictures import Roles, case_pictures
from pipeline.report.sheet import DPI, PAGES_IN, Tile, bar_length_mm, draw, layout
from pipeline.report.slices import Frame
from pipeline.volumes import affine_of, volume


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_one_scale_for_every_picture():
    sizes = [[(100.0, 150.0)] * 4, [(200.0, 150.0)] * 4, [(200.0, 100.0)] * 4]
    plan = layout(sizes)
    for row, line in enumerate(sizes):
        for column, (height_mm, width_mm) in enumerate(line):
            left, bottom, width, height = plan.box(row, column, (height_mm, width_mm))
            assert width * plan.size[0] / width_mm == pytest.approx(plan.scale)
            assert height * plan.size[1] / height_mm == pytest.approx(plan.scale)
            assert left >= 0 and bottom >= 0 and left + width <= 1 and bottom + height <= 1
    assert any(plan.size[0] <= page[0] + 1e-9 and plan.size[1] <= page[1] + 1e-9 for page in PAGES_IN)


def test_a_tall_sheet_stands_and_a_wide_one_lies():
    tall = layout([[(1000.0, 400.0)] * 4] * 3).size
    wide = layout([[(150.0, 150.0)] * 4] * 3).size
    assert tall[1] > tall[0]
    assert wide[0] > wide[1]


def test_a_picture_is_drawn_where_the_layout_says():
    """A tile whose left upper quarter is white, in mm twice as high as wide."""
    array = np.zeros((80, 40))
    array[:40, :20] = 1.0
    tile = Tile(array, (200.0, 100.0), "RLAP")
    sheet = pixels(draw([[tile, Tile(np.zeros((80, 40)), (200.0, 100.0), "RLAP")]], ["Axial"], ["a", "b"], "Title"))
    plan = layout([[(200.0, 100.0)] * 2])
    left, bottom, width, height = plan.box(0, 0, (200.0, 100.0))
    x, y = left * plan.size[0] * DPI, (1 - bottom - height) * plan.size[1] * DPI
    wide, high = width * plan.size[0] * DPI, height * plan.size[1] * DPI
    assert high == pytest.approx(2 * wide)
    for row, column, expected in ((0.2, 0.3, 255), (0.2, 0.7, 0), (0.7, 0.2, 0), (0.7, 0.7, 0), (0.45, 0.3, 255)):
        assert sheet[round(y + row * high), round(x + column * wide)].tolist() == [expected] * 3


@pytest.mark.parametrize(("width_mm", "expected"), [(160, 50), (149, 20), (61, 20), (500, 100), (2, 1)])
def test_scale_bar_is_round_and_short(width_mm, expected):
    assert bar_length_mm(width_mm) == expected


def test_columns_show_the_two_images(pair):
    """The fixed column depends on the fixed image alone, the moving one on the moving alone."""
    ct, _ = pair
    frame = body_frame(ct, "CT")
    other = volume(np.full(ct.shape, 100.0), affine_of(ct))
    windows = ((-160.0, 240.0), (0.0, 200.0))
    both = pixels(alignment_figure(ct, other, "t", windows, frame)).astype(int)
    none = pixels(alignment_figure(ct, volume(np.zeros(ct.shape), affine_of(ct)), "t", windows, frame)).astype(int)
    changed = np.abs(both - none).max(axis=(0, 2))
    quarter = both.shape[1] // 4
    assert changed[: quarter - 20].max() == 0
    assert all(changed[part * quarter + 40 : (part + 1) * quarter - 40].max() > 25 for part in (1, 2, 3))


def test_different_grids_are_refused(pair):
    with pytest.raises(CaseError, match="E_GRID"):
        alignment_figure(*pair, "t")


def test_thumbnail_shows_the_cube_at_the_upper_left(pair):
    ct, _ = pair
    frame = body_frame(ct, "CT")
    frame = Frame((frame.centre[0], frame.centre[1], 18), frame.low, frame.high)
    picture = pixels(thumbnail(ct, volume(np.zeros(ct.shape), affine_of(ct)), ((300.0, 700.0), (0.0, 1.0)), frame))
    row, column = np.argwhere(picture[..., 0] > 128).mean(axis=0) / picture.shape[:2]
    assert 0.2 < row < 0.45
    assert 0.2 < column < 0.45
    assert max(picture.shape) <= 200


def test_gallery_draws_every_channel(case):
    ct = case["ct"]
    frame = body_frame(ct, "CT")
    channels = [Channel("a", case["ct_windows"], 0, (0.0, 1.0), frame), Channel("b", ct, 0, (2000.0, 3000.0), frame)]
    picture = pixels(gallery_figure(channels, "t"))
    half = picture.shape[1] // 2
    # The first channel shows a body, the second one nothing but letters and lines.
    assert (picture[:, :half] > 100).mean() > 0.2
    assert (picture[:, half:] > 100).mean() < 0.02


def test_channels_bear_their_names(case, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "gallery_figure", lambda channels, title: drawn.extend(channels) or b"")
    roles = Roles("ct", ("mr",), {"ct": "CT", "mr": "MR"})
    assert case_pictures({key: case[key] for key in ("ct", "ct_windows", "records")}, roles)[0].key == "gallery_1"
    assert [(item.name, item.channel, item.window) for item in drawn] == [
        ("CT soft tissue", 0, (0.0, 1.0)),
        ("CT bone", 1, (0.0, 1.0)),
    ]
    assert drawn[0].frame == body_frame(case["ct"], "CT")
    drawn.clear()
    case_pictures({"ct": case["ct"], "ct_windows": case["ct_windows"]}, roles)
    assert [item.name for item in drawn] == ["CT windows 1", "CT windows 2"]


def test_pictures_of_a_case(case):
    roles = Roles("ct", ("mr",), {"ct": "CT", "mr": "MR"})
    keys = [picture.key for picture in case_pictures(case, roles)]
    assert keys == ["mr_before", "mr_after", "mr_thumbnail", "gallery_1"]
    del case["mr_aligned"], case["ct_windows"]
    assert [picture.key for picture in case_pictures(case, roles)] == ["mr_before"]
    del case["ct"]
    assert case_pictures(case, roles) == ()
