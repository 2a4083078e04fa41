"""The drawn sheets: scale, aspect, placement, and the pixels themselves."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CaseError
from pipeline.geometry import apply
from pipeline.report import pictures
from pipeline.report.figures import (
    COLOURS,
    Column,
    Labels,
    draw_columns,
    position_text,
    scrollable,
    thumbnail,
    view_of,
    window_text,
)
from pipeline.report.images import CaseImages
from pipeline.report.pictures import Atlas, flicker_groups
from pipeline.report.sheet import DPI, PAGES_IN, Scale, Swatch, Tile, bar_length_mm, draw, layout
from pipeline.report.slices import Frame, body_frame, plane_slice, voxels
from pipeline.store.sections import Axis, Coloured, Display, Panel, Picture, Regions, Sections
from pipeline.volumes import affine_of, volume

CYAN, PINK = Swatch("one", np.array([0.0, 0.8, 1.0])), Swatch("two", np.array([1.0, 0.4, 0.8]))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_one_scale_for_every_picture():
    sizes = [[(100.0, 150.0)] * 4, [(200.0, 150.0)] * 4, [(200.0, 100.0)] * 4]
    plan = layout(sizes)
    for row, line in enumerate(sizes):
        for column, (height_mm, width_mm) in enumerate(line):
            left, top, width, height = plan.box(row, column, (height_mm, width_mm))
            assert width / width_mm == pytest.approx(plan.scale)
            assert height / height_mm == pytest.approx(plan.scale)
            assert left >= 0 and top >= 0 and left + width <= plan.size[0] and top + height <= plan.size[1]
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
    x, y, wide, high = (DPI * inches for inches in plan.box(0, 0, (200.0, 100.0)))
    assert high == pytest.approx(2 * wide)
    for row, column, expected in ((0.2, 0.3, 255), (0.2, 0.7, 0), (0.7, 0.2, 0), (0.7, 0.7, 0), (0.45, 0.3, 255)):
        assert sheet[round(y + row * high), round(x + column * wide)].tolist() == [expected] * 3


def test_a_long_title_ends_on_its_sheet():
    """The picture is black: what is bright above it is the title."""
    tile = Tile(np.zeros((60, 60)), (100.0, 100.0), "RLAP")
    for letters in (10, 40, 80):
        sheet = pixels(draw([[tile]], ["Axial"], [""], "W" * letters))[: round(0.34 * DPI), :, 0]
        bright = np.flatnonzero((sheet > 100).any(axis=0))
        assert 0 < bright[0] < 0.15 * DPI and bright[-1] < sheet.shape[1] - 3


@pytest.mark.parametrize(("width_mm", "expected"), [(160, 50), (149, 20), (61, 20), (500, 100), (2, 1)])
def test_scale_bar_is_round_and_short(width_mm, expected):
    assert bar_length_mm(width_mm) == expected


def test_a_legend_is_below_in_the_colours_it_names():
    tile = Tile(np.zeros((60, 60)), (100.0, 100.0), "RLAP")
    without = pixels(draw([[tile]], ["Axial"], ["a"], "t"))
    sheet = pixels(draw([[tile]], ["Axial"], ["a"], "t", legend=[CYAN, PINK]))
    added = sheet[without.shape[0] - 10 :]
    for swatch in (CYAN, PINK):
        found = (added == np.round(swatch.colour * 255)).all(axis=-1)
        assert found.sum() > 100 and not (without == np.round(swatch.colour * 255)).all(axis=-1).any()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_an_outline_is_the_edge_of_its_mask(plane):
    """A block of 10 x 8 x 6 voxels: the coloured pixels are those of its voxels that are at most 2 pixels inside."""
    inside = np.zeros((30, 30, 30), bool)
    inside[8:18, 12:20, 10:16] = True
    column = Column("a", np.zeros(inside.shape), (0, 1), outlined=(Labels(inside, {1: CYAN}),))
    grid = volume(np.zeros(inside.shape), np.diag([2.0, 2.0, 2.0, 1.0]))
    view = view_of(grid, plane, Frame((12, 15, 12), (0, 0, 0), inside.shape))
    shown = column.pixels(view)
    drawn = (shown == CYAN.colour).all(axis=-1)
    assert (shown[~drawn] == 0).all()
    # 480 pixels for 30 voxels: 16 pixels a voxel.
    filled = np.kron(plane_slice(inside, plane, view.frame), np.ones((16, 16), bool))
    rows, columns = np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))
    expected = filled.copy()
    expected[rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1] = False
    assert (drawn == expected).all()


def test_an_outline_is_open_where_the_picture_ends():
    inside = np.zeros((10, 10, 10), bool)
    inside[:5] = True
    column = Column("a", np.zeros(inside.shape), (0, 1), outlined=(Labels(inside, {1: CYAN}),))
    view = view_of(volume(np.zeros(inside.shape), np.eye(4)), "axial", Frame((5, 5, 5), (0, 0, 0), inside.shape))
    drawn = (column.pixels(view) == CYAN.colour).all(axis=-1)
    assert set(np.flatnonzero(drawn.any(0))) == {240, 241} and drawn.all(1).sum() == 0


def test_labels_have_the_colours_of_the_legend_and_no_other():
    labels = np.zeros((20, 20, 20))
    labels[2:8, 2:8] = 1
    labels[12:18, 12:18] = 3
    grey = np.full(labels.shape, 0.5)
    swatches = {1: CYAN, 3: PINK, 4: Swatch("absent", np.array([1.0, 1.0, 0.0]))}
    column = Column("a", grey, (0, 1), filled=Labels(labels, swatches))
    view = view_of(volume(labels, np.eye(4)), "axial", Frame((5, 5, 5), (0, 0, 0), labels.shape))
    assert [item.name for item in column.swatches(view)] == ["one", "two"] and column.scale is None
    shown = column.pixels(view)
    assert len(np.unique(shown.reshape(-1, 3).round(6), axis=0)) == 5  # grey, and of each label its edge and inside
    for at, swatch in (((0.5 + 20 - 5) * 24, CYAN), ((0.5 + 20 - 15) * 24, PINK)):
        inside = shown[int(at), int(at)]
        assert inside == pytest.approx(0.6 * 0.5 + 0.4 * swatch.colour)
        assert (shown == swatch.colour).all(axis=-1).any()


def signed_column(**more):
    values = np.zeros((20, 20, 20))
    values[12:18, 8:12] = 0.4
    values[2:8, 8:12] = -0.2
    coloured = Coloured("k", 0, 0.4, "fall", **more)
    return Column("a", np.full(values.shape, 0.5), (0, 1), top=values, coloured=coloured)


def test_values_above_and_below_zero_are_amber_and_blue_at_their_place():
    """The patient's right is at the left of the picture: I runs to the right, so columns run against it."""
    column = signed_column(signed=True)
    shown = column.pixels(view_of(volume(column.grey, np.eye(4)), "axial", Frame((5, 9, 5), (0, 0, 0), (20, 20, 20))))
    row = (20 - 9.5) * 24
    red, _, blue = shown[int(row), int((20 - 14.5) * 24)]
    assert red - blue > 0.3
    red, _, blue = shown[int(row), int((20 - 4.5) * 24)]
    assert blue - red > 0.1
    assert shown[10, 10].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("more", "low", "high"),
    [({"signed": True}, "-0.4", "0.4"), ({}, "0", "0.4"), ({"beyond": True}, "0", "≥ 0.4")],
)
def test_a_scale_says_what_the_colours_mean(more, low, high):
    scale = signed_column(**more).scale
    assert isinstance(scale, Scale) and (scale.low, scale.high, scale.unit) == (low, high, "fall")


def test_the_scale_of_an_image_in_colour_is_its_window():
    column = Column("a", np.zeros((4, 4, 4)), (0, 1), top=np.zeros((4, 4, 4)), top_window=(0.0, 10.0), top_unit="SUVbw")
    assert (column.scale.low, column.scale.high, column.scale.unit) == ("0", "10", "SUVbw")
    assert column.scale.colours is COLOURS


@pytest.mark.parametrize(
    ("window", "unit", "text"),
    [
        ((-160.0, 240.0), "HU", "W 400 L 40 HU"),
        ((0.0, 10.0), "SUVbw", "0 to 10 SUVbw"),
        ((3.14159, 812.4), "", "3.14 to 812"),
        ((2.12e-9, 2923.0), "1e-6 mm2/s", "0 to 2920 1e-6 mm2/s"),
        ((-1e-12, 0.8), "", "0 to 0.8"),
        ((0.01234, 0.04567), "", "0.0123 to 0.0457"),
    ],
)
def test_windows_in_words(window, unit, text):
    assert window_text(window, unit) == text


def test_the_position_of_a_slice_is_the_affines(pair):
    ct, _ = pair
    x, y, z = apply(affine_of(ct), (11, 23, 17))
    frame = Frame((11, 23, 17), (0, 0, 0), ct.shape[1:])
    assert position_text(ct, "axial", frame) == f"z = {z:.1f} mm"
    assert position_text(ct, "coronal", frame) == f"y = {y:.1f} mm"
    assert position_text(ct, "sagittal", frame) == f"x = {x:.1f} mm"


def test_scrollable_slices_run_from_head_to_feet(pair):
    ct, _ = pair
    frame = Frame((20, 22, 15), (4, 4, 2), (36, 40, 29))
    slices = scrollable([Column("a", voxels(ct), (-160, 240)), Column("b", voxels(ct) * 0, (0, 1))], ct, frame)
    assert len(slices) == 24
    heights = [float(place.removeprefix("z = ").removesuffix(" mm")) for place, _ in slices]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == pytest.approx(apply(affine_of(ct), (20, 22, 28))[2], abs=0.06)
    assert heights[-1] == pytest.approx(apply(affine_of(ct), (20, 22, 2))[2], abs=0.06)
    middle = pixels(slices[12][1]).astype(int)
    half = middle.shape[1] // 2
    assert middle[:, : half - 8].max() > 100 and middle[:, half + 8 :].max() < 20


def test_a_grid_of_one_voxel_is_one_plane():
    flat = volume(np.random.default_rng(0).random((60, 1, 80)), np.diag([1.0, 1.0, 1.0, 1.0]))
    column = Column("a", voxels(flat), (0, 1))
    frame = Frame((30, 0, 40), (0, 0, 0), (60, 1, 80))
    assert scrollable([column], flat, frame) == ()
    sheet = pixels(draw_columns([column], flat, frame, "t"))
    assert (sheet > 100).mean() > 0.3


def test_a_flat_picture_with_axes_has_ticks_where_they_are_and_no_letters():
    """The picture itself is black: what is bright in it are ticks, at a quarter of its height, and their texts."""
    image = volume(np.zeros((60, 40, 1)), np.eye(4))
    frame = Frame((0, 0, 0), (0, 0, 0), (60, 40, 1))
    axes = (Axis("Time", ((0.5, "1 s"),)), Axis("Frequency", ((0.25, "1 kHz"),)))
    column = Column("sound", voxels(image), (0.0, 1.0))
    with_axes = pixels(draw_columns([column], image, frame, "t", axes))
    plan = layout([[(40.0, 60.0)]])
    left, top, wide, tall = (DPI * inches for inches in plan.box(0, 0, (40.0, 60.0)))
    yellow = (with_axes[..., 0] > 200) & (with_axes[..., 2] < 160)
    row, foot = round(top + 0.75 * tall), round(top + tall)
    inside = slice(round(left) + 2, round(left + wide) - 2)
    assert yellow[row - 2 : row + 3, inside.start : inside.start + 6].any()
    column_at = round(left + 0.5 * wide)
    assert yellow[foot - 12 : foot, column_at - 2 : column_at + 3].any()
    upper = yellow[round(top) : row - 15, inside]
    assert not upper.any()  # no letter, and no bar in mm
    assert (pixels(draw_columns([column], image, frame, "t"))[..., 0] > 200).sum() > 0


def test_thumbnail_shows_the_cube_at_the_upper_left(pair):
    ct, _ = pair
    frame = body_frame(ct, "CT")
    frame = Frame((frame.centre[0], frame.centre[1], 18), frame.low, frame.high)
    picture = pixels(thumbnail(Column("a", voxels(ct), (300.0, 700.0)), ct, frame))
    row, column = np.argwhere(picture[..., 0] > 128).mean(axis=0) / picture.shape[:2]
    assert 0.2 < row < 0.45
    assert 0.2 < column < 0.45
    assert max(picture.shape) <= 200


# ---- from what the stages say to columns -----------------------------------------------------------------------------


def atlas_of(records, folder, *said):
    return Atlas(CaseImages(records, folder, {}), *said)


DISPLAYS = (Display("ct", "CT", "HU", (-160.0, 240.0)), Display("mr_aligned", "MR"))
REGIONS = (Regions("lesion", ("ct",), {1: "Tumour"}),)


def test_outlines_are_on_every_panel_that_shows_their_image(records, tmp_path):
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS, regions=REGIONS))
    panels = (
        Panel("a", "ct"),
        Panel("b", "mr_aligned"),
        Panel("c", "mr_aligned", overlaid="ct"),
        Panel("d", "mr_aligned", checkered="ct"),
    )
    grid = atlas.images["ct"]
    columns = [atlas._column(panel, panel, grid) for panel in panels]
    names = [[swatch.name for labels in column.outlined for swatch in labels.swatches.values()] for column in columns]
    assert names == [["Tumour"], [], ["Tumour"], ["Tumour"]]
    assert ((columns[0].outlined[0].values == 1) == (voxels(grid) == 900)).all()
    assert [column.note for column in columns[::3]] == ["W 400 L 40 HU", ""]


def test_before_an_alignment_what_it_moved_is_not_outlined(records, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "draw_columns", lambda columns, *rest: seen.extend(columns) or b"")
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS, regions=REGIONS))
    shown = Picture("p", "P", "", (Panel("a", "ct"),))
    atlas.draw((replace(shown, without="mr"), shown, replace(shown, without="ct")))
    assert [len(column.outlined) for column in seen] == [1, 1, 0]


def test_a_name_of_two_label_images_says_which_one_is_meant(records, tmp_path):
    two = (Regions("lesion", ("ct",), {1: "tumour", 2: "node"}), Regions("heat", ("ct",), {1: "tumour"}))
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS, regions=two))
    column = atlas._column(Panel("a", "ct"), Panel("a", "ct"), atlas.images["ct"])
    swatches = [swatch for labels in column.outlined for swatch in labels.swatches.values()]
    assert [swatch.name for swatch in swatches] == ["tumour (lesion)", "node", "tumour (heat)"]
    assert len({tuple(swatch.colour) for swatch in swatches}) == 3


def test_a_label_image_of_which_two_stages_speak_is_one(records, tmp_path):
    same = (Regions("lesion", ("ct",), {1: "tumour"}), Regions("lesion", ("mr",), {1: "tumour"}))
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS, regions=same))
    for key in ("ct", "mr"):
        (labels,) = atlas._column(Panel("a", key), Panel("a", key), atlas.images[key]).outlined
        assert labels.swatches[1].name == "tumour"


def test_an_outline_goes_with_its_image_to_another_grid(records, tmp_path):
    atlas = atlas_of(records, tmp_path, Sections(regions=REGIONS))
    column = atlas._column(Panel("a", "ct"), Panel("a", "ct"), atlas.images["mr"])
    centre = apply(affine_of(atlas.images["mr"]), np.argwhere(column.outlined[0].values == 1).mean(axis=0))
    assert np.abs(centre - (12, 9, 12)).max() < 0.7


def test_labels_over_an_image_have_the_colour_of_their_outline(records, tmp_path):
    atlas = atlas_of(records, tmp_path, Sections(regions=REGIONS))
    panel = Panel("a", "ct", coloured=Coloured("lesion", names={1: "Tumour"}))
    column = atlas._column(panel, panel, atlas.images["ct"])
    assert (column.filled.swatches[1].colour == column.outlined[0].swatches[1].colour).all()


def test_pictures_in_turn_share_planes_and_windows(records, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("pipeline.report.pictures.draw_columns", lambda *args: drawn.append(args) or b"")
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS))
    pictures = [
        Picture(key, key, "", (Panel("CT", "ct"), Panel("MR", key)), flicker="x") for key in ("mr", "mr_aligned")
    ]
    (group,) = flicker_groups(pictures)
    atlas.draw(group)
    (before, grid, frame, *_), (after, same_grid, same_frame, *_) = drawn
    assert grid is same_grid and frame is same_frame
    assert [column.window for column in before] == [column.window for column in after]
    # Both show the cube of the scene at the same place: the headers of this pair agree already.
    assert abs(np.argwhere(before[1].grey > 700).mean(0) - np.argwhere(after[1].grey > 700).mean(0)).max() < 0.5


def test_the_planes_run_through_the_focus(records, tmp_path):
    atlas = atlas_of(records, tmp_path, Sections(displays=DISPLAYS))
    panel = (Panel("a", "ct"),)
    ct = atlas.images["ct"]
    assert atlas._frame(Picture("k", "t", "", panel, focus="heat"), ct).centre == (27, 25, 18)
    assert atlas._frame(Picture("k", "t", "", panel), ct) == body_frame(ct, "CT")
    heat = atlas.images["heat"]
    outside = tuple(np.argwhere(np.asarray(ct[0]) == float(ct.min()))[0])
    before, heat[(0, *outside)] = float(heat[(0, *outside)]), 2 * float(heat.max())
    # where the image is filled up nothing can be seen
    assert atlas._frame(Picture("k", "t", "", panel, focus="heat"), ct).centre == (27, 25, 18)
    heat[(0, *outside)] = before
    mr = atlas.images["mr"]
    centre = atlas._frame(Picture("k", "t", "", (Panel("a", "mr"),), focus="heat"), mr).centre
    assert np.abs(apply(affine_of(mr), centre) - apply(affine_of(ct), (27, 25, 18))).max() < 2


def test_a_map_on_another_grid_is_refused(records, tmp_path):
    atlas = atlas_of(records, tmp_path, Sections())
    panel = Panel("a", "mr", coloured=Coloured("heat"))
    with pytest.raises(CaseError, match="E_GRID"):
        atlas._column(panel, panel, atlas.images["mr"])
