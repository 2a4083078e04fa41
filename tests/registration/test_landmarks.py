from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.geometry import LPS_RAS, apply
from pipeline.registration.landmarks import (
    Landmarks,
    as_table,
    left_out_mm,
    match,
    read_landmarks,
    residuals_mm,
    solve,
    write_points,
)
from tests.registration.phantom import oblique_grid, rigid

AFFINE = oblique_grid((20, 24, 18), (1.5, 2.0, 3.0), (10, -15, 20), (4, -6, 8))
POINTS = np.array([[10.5, -20.0, 30.25], [-40.0, 5.0, 12.0], [22.0, 33.0, -44.0], [1.0, 60.0, 9.0], [-8.0, -9.0, 70.0]])
NAMES = ("nose", "left ear", "right ear", "vertex", "inion")


def test_a_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    marks = Landmarks(POINTS / 3, ("a, b", 'say "c"', "d", "e", "f"))
    (tmp_path / "x.csv").write_text(as_table(marks))
    back = read_landmarks(tmp_path / "x.csv", None)
    np.testing.assert_array_equal(back.points, marks.points)
    assert back.names == marks.names
    (tmp_path / "x.csv").write_text(as_table(Landmarks(POINTS)))
    assert read_landmarks(tmp_path / "x.csv", None).names == ()


def test_a_tables_columns_are_found_whatever_their_case_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Name, X,Y ,z,Convention\nnose,1,2,3,LPS\nvertex,4,5,6,LPS\ninion,7,8,1,LPS\n")
    found = read_landmarks(tmp_path / "x.csv", None)
    assert found.names == ("nose", "vertex", "inion")
    np.testing.assert_array_equal(found.points, [[-1, -2, 3], [-4, -5, 6], [-7, -8, 1]])


def test_voxels_need_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("index\n1\n1 2 3\n")
    np.testing.assert_allclose(
        read_landmarks(tmp_path / "x.txt", AFFINE).points, apply(AFFINE, np.array([[1.0, 2, 3]]))
    )
    with pytest.raises(CaseError, match="in mm") as caught:
        read_landmarks(tmp_path / "x.txt", None)
    assert caught.value.code == "E_LANDMARKS"


def rows(points: np.ndarray) -> list[str]:
    return [f"{name},{','.join(map(str, point))}" for name, point in zip(NAMES, points, strict=True)]


def markups(points: np.ndarray, system: str) -> str:
    control = [
        {"label": n, "position": list(p), "positionStatus": "defined"} for n, p in zip(NAMES, points, strict=True)
    ]
    control.append({"label": "later", "position": [0, 0, 0], "positionStatus": "undefined"})
    return json.dumps({"markups": [{"coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control}]})


def fcsv(points: np.ndarray, system: str) -> str:
    head = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}"]
    head += ["# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]
    body = [
        f"vtk_{i},{p[0]},{p[1]},{p[2]},0,0,0,1,1,1,0,{n},," for i, (n, p) in enumerate(zip(NAMES, points, strict=True))
    ]
    return "\n".join([*head, *body])


LPS_POINTS = apply(LPS_RAS, POINTS)
INDEX = apply(np.linalg.inv(AFFINE), POINTS)
FILES = {
    "elastix points": (
        "a.txt",
        "point\n5\n" + "\n".join(" ".join(map(repr, map(float, p))) for p in LPS_POINTS),
        False,
    ),
    "elastix indices": ("a.pts", "index\n5\n" + "\n".join(" ".join(map(repr, map(float, p))) for p in INDEX), False),
    "csv, first line": ("a.csv", "\n".join(["# convention: LPS", "name,x,y,z", *rows(LPS_POINTS)]), True),
    "csv, semicolons": (
        "a.csv",
        "\n".join(["# convention: RAS", "name;x;y;z", *rows(POINTS)]).replace(",", ";"),
        True,
    ),
    "csv, a column": (
        "a.csv",
        "\n".join(["name,x,y,z,convention", *(f"{row},RAS" for row in rows(POINTS))]),
        True,
    ),
    "Slicer, LPS": ("a.mrk.json", markups(LPS_POINTS, "LPS"), True),
    "Slicer, RAS": ("a.mrk.json", markups(POINTS, "RAS"), True),
    "Slicer's older format, LPS": ("a.fcsv", fcsv(LPS_POINTS, "LPS"), True),
    "Slicer's older format, by number": ("a.fcsv", fcsv(POINTS, "0"), True),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_every_format_gives_the_same_points(tmp_path: Path, kind: str) -> None:
    name, text, named = FILES[kind]
    (tmp_path / name).write_text(text)
    found = read_landmarks(tmp_path / name, AFFINE)
    np.testing.assert_allclose(found.points, POINTS, atol=1e-9)
    assert found.names == (NAMES if named else ())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "name,x,y,z\nnose,1,2,3", "does not say one"),
        ("a.csv", "name,x,y,z,convention\nnose,1,2,3,RAS\near,1,2,3,LPS", "does not say one"),
        ("a.mrk.json", markups(POINTS, "IJK"), "does not say one"),
        ("a.mrk.json", markups(POINTS, "LPS").replace('"mm"', '"um"'), "in mm"),
        ("a.fcsv", "vtk_0,1,2,3", "KeyError"),
        ("a.txt", "voxel\n1\n1 2 3", "`point` or `index`"),
        ("a.txt", "point\n2\n1 2 3", "got 3 numbers"),
        ("a.csv", "# convention: RAS\nname,x,y,z\nnose,1,nan,3", "finite"),
        ("a.csv", "# convention: RAS\nname,x,y,z\nnose,1,,3", "ValueError"),
        ("a.csv", "# convention: RAS\nname,x,y,z\n", "got 0 points"),
        ("a.xml", "<points/>", "type .xml"),
        ("a.mrk.json", '{"markups": ["x"]}', "AttributeError"),
        ("a.mrk.json", markups(POINTS, "LPS").replace('"LPS"', "1"), "AttributeError"),
        ("a.mrk.json", "[" * 100_000, "RecursionError"),
        ("a.csv", f"# convention: RAS\nname,x,y,z\n{'a' * 140_000},1,2,3", "cannot be read"),
        ("a.csv", "# convention: RAS\nx,y,z\n1,5,2,5,3,5", "decimal commas"),
        ("a.csv", "# convention: RAS\nname,x,y,z\nnose,1,2,3\n,4,5,6", "got 1 for 2"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CaseError, match=words) as caught:
        read_landmarks(tmp_path / name, AFFINE)
    assert caught.value.code == "E_LANDMARKS"


def test_names_decide_which_points_belong_together() -> None:
    order = [3, 0, 4, 2, 1]
    fixed, moving = match(
        Landmarks(POINTS, NAMES), Landmarks(POINTS[order] + 1, tuple(NAMES[index] for index in order))
    )
    np.testing.assert_array_equal(moving, fixed + 1)
    _, as_they_stand = match(Landmarks(POINTS), Landmarks(POINTS[order], NAMES))
    np.testing.assert_array_equal(as_they_stand, POINTS[order])


@pytest.mark.parametrize(
    ("fixed", "moving", "words"),
    [
        (Landmarks(POINTS, NAMES), Landmarks(POINTS[:4], NAMES[:4]), "got 5 and 4"),
        (Landmarks(POINTS, NAMES), Landmarks(POINTS, (*NAMES[:4], "chin")), "2 others"),
        (Landmarks(POINTS, NAMES), Landmarks(POINTS, (*NAMES[:4], "nose")), "twice"),
    ],
)
def test_landmarks_that_do_not_belong_together(fixed: Landmarks, moving: Landmarks, words: str) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        match(fixed, moving)
    assert caught.value.code == "E_LANDMARKS"


@pytest.mark.parametrize("count", [3, 5])
def test_a_known_rigid_motion_is_found(count: int) -> None:
    truth = rigid((35, -50, 110), (12, -80, 40))
    found = solve(POINTS[:count], apply(truth, POINTS[:count]), "rigid")
    np.testing.assert_allclose(found, truth, atol=1e-9)


def test_a_mirror_image_is_not_taken_for_a_rigid_motion() -> None:
    found = solve(POINTS, POINTS * [-1, 1, 1], "rigid")
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
    assert residuals_mm(found, POINTS, POINTS * [-1, 1, 1]).max() > 10


def test_a_known_affine_map_is_found() -> None:
    truth = rigid((10, 20, -30), (5, 6, -7)) @ np.diag([1.1, 0.9, 1.2, 1.0])
    truth[0, 1] += 0.15
    np.testing.assert_allclose(solve(POINTS, apply(truth, POINTS), "affine"), truth, atol=1e-9)


def test_noisy_landmarks_give_the_least_squares_pose() -> None:
    """No other pose near it has a smaller sum of squares; what is left out shows a larger error than what is fitted."""
    noise = np.random.default_rng(4).normal(0, 1.0, POINTS.shape)
    moved = apply(rigid((5, 8, -12), (3, 2, 1)), POINTS) + noise
    found = solve(POINTS, moved, "rigid")
    best = (residuals_mm(found, POINTS, moved) ** 2).sum()
    for seed in range(50):
        angles, shift = np.random.default_rng(seed).normal(0, 0.3, (2, 3))
        assert (residuals_mm(found @ rigid(tuple(angles), tuple(shift)), POINTS, moved) ** 2).sum() > best
    assert left_out_mm(POINTS, moved, "rigid") > residuals_mm(found, POINTS, moved).mean()
    assert left_out_mm(POINTS[:3], moved[:3], "rigid") is None


@pytest.mark.parametrize(
    ("points", "model", "words"),
    [
        (POINTS[:2], "rigid", "at least 3"),
        (POINTS[:3], "affine", "at least 4"),
        (np.outer([0, 1, 2, 5.0], [1.0, 2.0, -1.0]), "rigid", "one line"),
        (POINTS * [1, 1, 0], "affine", "one plane"),
    ],
)
def test_landmarks_that_leave_a_map_open(points: np.ndarray, model: str, words: str) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        solve(points, points + 1.0, model)
    assert caught.value.code == "E_LANDMARKS"


def test_what_elastix_reads_is_what_was_meant(tmp_path: Path) -> None:
    write_points(tmp_path / "p.txt", POINTS)
    np.testing.assert_array_equal(read_landmarks(tmp_path / "p.txt", AFFINE).points, POINTS)
