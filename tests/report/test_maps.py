"""Why a case got its class: maps over images at the right place and in the right colour, and a row a modality."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pymupdf
import pytest
from PIL import Image

from pipeline.errors import CaseError
from pipeline.report.content import case_content
from pipeline.report.figures import Map, _map_over_image, _scale
from pipeline.report.framing import body_frame
from pipeline.report.html import case_page
from pipeline.report.pdf import case_pdf
from pipeline.report.pictures import Roles
from pipeline.report.why import CAVEAT, _frame, _maps, case_why
from pipeline.volumes import affine_of, volume

MEASURES = {
    "fused_class": "malignant",
    "fused_class_probability": 0.81,
    "fused_explained_class": "malignant",
    "fused_explained_tiles": "3 of 12",
    "fused_gradcam_channels": "ct, mr",
    "fused_gradcam_share_ct": 0.7,
    "fused_gradcam_share_mr": 0.3,
    "fused_gates_channels": "ct, mr",
    "fused_gate_share_ct": 0.4,
    "fused_gate_share_mr": 0.6,
    "fused_class_without_mr": "benign",
    "fused_class_probability_without_mr": 0.35,
    "fused_class_probability_change_without_mr": -0.46,
}
#: Voxels of the CT: what speaks for the class, and what speaks against it.
FOR, AGAINST = (26, 25, 19), (14, 25, 19)
ROLES = Roles("ct", ("mr",), {"ct": "CT", "mr": "MR"})


def block(shape: tuple[int, ...], at: tuple[int, int, int], value: float) -> np.ndarray:
    values = np.zeros(shape, np.float32)
    values[tuple(slice(index - 2, index + 3) for index in at)] = value
    return values


@pytest.fixture
def explained(case):
    """The case after a fusion network was asked to explain itself."""
    ct = case["ct"]
    shape, matrix = tuple(ct.shape[1:]), affine_of(ct)
    gates = np.stack([np.full(shape, 0.4, np.float32), np.full(shape, 0.6, np.float32)])
    maps = {
        "fused_occlusion": volume((block(shape, FOR, 0.4) + block(shape, AGAINST, -0.2))[None], matrix),
        "fused_gradcam": volume(np.stack([block(shape, FOR, 0.02), block(shape, FOR, 0.01)]), matrix),
        "fused_gates": volume(gates, matrix),
    }
    fuse = replace(case["records"][1], stage="fuse", artifacts=(), measures=MEASURES, flags=())
    return {**case, **maps, "records": [*case["records"], fuse]}


def test_nothing_is_said_where_nobody_asked(case):
    assert case_why(case, case["records"], ROLES) is None
    assert case_content(case).why is None


def test_a_row_for_each_modality(explained):
    why = case_why(explained, explained["records"], ROLES)
    assert why.heading == "Why malignant"
    assert why.rows == (
        ("CT", "0.7", "0.4", "not available", "not available", "not available"),
        ("MR", "0.3", "0.6", "0.35", "-0.460", "benign"),
    )
    (picture,) = why.pictures
    assert picture.key == "why_1" and picture.caption.endswith(CAVEAT)
    assert all(word in picture.caption for word in ("Grad-CAM:", "Occlusion:", "Gate:"))


def found_maps(explained) -> dict[str, Map]:
    return {item.name: item for item in _maps(explained, explained["ct"], ROLES)}


def test_maps_share_their_scale_and_name_its_unit(explained):
    maps = found_maps(explained)
    assert list(maps) == ["Grad-CAM CT", "Grad-CAM MR", "Occlusion", "Gate CT", "Gate MR"]
    scales = {name: _scale(item) for name, item in maps.items()}
    assert [(scale.low, scale.high) for scale in scales.values()] == [
        ("0", "0.02"),
        ("0", "0.02"),
        ("-0.4", "0.4"),
        ("0", "1"),
        ("0", "1"),
    ]
    assert scales["Occlusion"].unit == "fall of the probability" and "log-odds" in scales["Grad-CAM CT"].unit
    assert np.allclose(maps["Grad-CAM MR"].image.numpy(), explained["mr_aligned"].numpy())
    assert np.allclose(maps["Gate CT"].image.numpy(), explained["ct"].numpy())


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_the_planes_go_through_the_peak_and_colours_lie_where_the_map_is(explained, plane):
    """The patient's right is at the left of the picture: I runs to the right, so columns run against it."""
    item = found_maps(explained)["Occlusion"]
    frame = _frame(explained["ct"], [item], ROLES)
    assert frame.centre == FOR
    pixels = _map_over_image(item, plane, frame)
    size = np.asarray(frame.high) - frame.low
    rows_axis = 1 if plane == "axial" else 2

    def at(voxel):
        row = (frame.high[rows_axis] - 0.5 - voxel[rows_axis]) / size[rows_axis]
        column = (frame.high[0] - 0.5 - voxel[0]) / size[0]
        return pixels[int(row * pixels.shape[0]), int(column * pixels.shape[1])]

    red, _, blue = at(FOR)
    assert red - blue > 0.3
    red, _, blue = at(AGAINST)
    assert blue - red > 0.1
    red, green, blue = at((20, 25, 19))
    assert red == pytest.approx(green) == pytest.approx(blue)


def test_a_few_voxels_do_not_take_the_colours_from_all_others(explained):
    values = explained["fused_gradcam"].numpy().copy()
    values[0][FOR] = 5.0
    maps = found_maps({**explained, "fused_gradcam": volume(values, affine_of(explained["ct"]))})
    assert maps["Grad-CAM CT"].limit == pytest.approx(0.02) and _scale(maps["Grad-CAM CT"]).high == "≥ 0.02"


def test_the_planes_also_go_through_what_speaks_most_against_the_class(explained):
    against = volume(-explained["fused_occlusion"].numpy(), affine_of(explained["ct"]))
    item = found_maps({**explained, "fused_occlusion": against})["Occlusion"]
    assert _frame(explained["ct"], [item], ROLES).centre == FOR


def test_without_a_peak_the_planes_go_through_the_body(explained):
    gates = found_maps(explained)["Gate CT"]
    assert _frame(explained["ct"], [gates], ROLES) == body_frame(explained["ct"], "CT")


def test_a_map_on_another_grid_is_refused(explained):
    other = affine_of(explained["ct"]) @ np.diag([1, 1, 1.5, 1])
    moved = {**explained, "fused_occlusion": volume(explained["fused_occlusion"].numpy(), other)}
    with pytest.raises(CaseError) as raised:
        case_why(moved, moved["records"], ROLES)
    assert raised.value.code == "E_GRID"


def test_the_documents_say_it_with_the_caveat(explained):
    content = case_content(explained, modalities=ROLES.modalities)
    with pymupdf.open(stream=case_pdf(content)) as document:
        text = " ".join(" ".join(page.get_text() for page in document).split())
    page = case_page(content).decode()
    for said in (text, page):
        assert (
            "Why malignant" in said and "-0.460" in said and CAVEAT.split(".")[1].strip() in said.replace("&#39;", "'")
        )
    assert "Gradcam share" not in page and "fused_gradcam_share" not in page
    width, height = Image.open(io.BytesIO(content.why.pictures[0].png)).size
    assert width > 1000 and height > 600
