from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from skimage.metrics import normalized_mutual_information

from pipeline.body import body_mask
from pipeline.geometry import LPS_RAS, FloatArray, apply
from pipeline.registration import elastix as runner
from pipeline.registration import starts, worker
from pipeline.registration.coarse import COARSE_MM, CoarsePair, coarse_spacing_mm, shrink
from pipeline.registration.starts import Start, best_starts
from pipeline.volumes import affine_of, to_sitk, transform_from_matrix, volume
from tests.registration.phantom import HeadPair, oblique_grid, rigid, scan


def searched(pair: HeadPair, count: int) -> tuple[CoarsePair, list[Start]]:
    masks = to_sitk(body_mask(pair.ct, "CT")), to_sitk(body_mask(pair.mr, "MR"))
    coarse = CoarsePair(to_sitk(pair.ct), to_sitk(pair.mr), *masks)
    return coarse, best_starts(coarse, *masks, count)


def in_ras(start: Start) -> FloatArray:
    return np.asarray(LPS_RAS @ start.matrix @ LPS_RAS)


def test_a_start_lies_near_the_truth_where_the_headers_are_far_off(far_pair: HeadPair) -> None:
    _, found = searched(far_pair, 4)
    assert far_pair.errors_mm(np.eye(4)).mean() > 60
    # Half a step of the rotations (10 degrees) on each axis moves a point 80 mm from the centre by up to 24 mm.
    assert far_pair.errors_mm(in_ras(found[0])).mean() < 25


def test_the_search_from_a_start_ends_near_the_truth(far_pair: HeadPair) -> None:
    """On voxels of 4 mm, averaged to 8."""
    coarse, found = searched(far_pair, 4)
    matrix, score = coarse.climb(found[0].matrix)
    assert far_pair.errors_mm(in_ras(Start("found", matrix))).mean() < 2.0 < far_pair.errors_mm(in_ras(found[0])).mean()
    assert score == coarse.score(matrix) > found[0].score
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_a_score_is_the_normalised_mutual_information_of_the_coarse_images(pair: HeadPair) -> None:
    """Against SimpleITK's resampling and scikit-image's NMI; the two read the moving image in slightly other places."""
    masks = to_sitk(body_mask(pair.ct, "CT")), to_sitk(body_mask(pair.mr, "MR"))
    images = to_sitk(pair.ct), to_sitk(pair.mr)
    fixed, moving = (shrink(image, COARSE_MM) for image in images)
    lps = LPS_RAS @ pair.truth @ LPS_RAS
    onto = sitk.Resample(moving, fixed, transform_from_matrix(pair.truth), sitk.sitkLinear, -1.0)
    inside = sitk.GetArrayFromImage(sitk.Resample(masks[0], fixed, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    values = [sitk.GetArrayFromImage(image)[inside] for image in (fixed, onto)]
    seen = values[1] >= 0
    body = sitk.GetArrayFromImage(sitk.Resample(masks[1], moving, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    limits = (0.0, np.percentile(sitk.GetArrayFromImage(moving)[body], 99.5))
    clipped = np.clip(values[0], *np.percentile(values[0], (0.5, 99.5)))[seen], np.clip(values[1], *limits)[seen]
    assert CoarsePair(*images, *masks).score(lps) == pytest.approx(
        normalized_mutual_information(*clipped, bins=32), abs=0.02
    )


def test_starts_are_apart_ranked_and_hold_the_headers_alignment(pair: HeadPair) -> None:
    coarse, found = searched(pair, 5)
    assert [start.number for start in found] == [0, 1, 2, 3, 4]
    scores = [start.score for start in found]
    assert scores == sorted(scores, reverse=True)
    header = next(start for start in found if start.name == "header")
    np.testing.assert_array_equal(header.matrix, np.eye(4))
    for one in found:
        assert all(coarse.apart_mm(one.matrix, o.matrix) >= starts.APART_MM for o in found if o is not one)


def test_a_pose_that_is_known_is_kept_whatever_its_score(pair: HeadPair) -> None:
    coarse, _ = searched(pair, 1)
    masks = to_sitk(body_mask(pair.ct, "CT")), to_sitk(body_mask(pair.mr, "MR"))
    poor = np.eye(4)
    poor[:3, 3] = [30.0, 0.0, 0.0]
    found = best_starts(coarse, *masks, 3, [Start("landmarks", poor)])
    assert "landmarks" in {start.name for start in found}
    assert "landmarks" not in {start.name for start in best_starts(coarse, *masks, 3)}


def test_images_that_do_not_meet_by_their_headers_still_get_starts(pair: HeadPair) -> None:
    away = np.eye(4)
    away[:3, 3] = [900.0, -400.0, 300.0]
    moved = HeadPair(pair.ct, volume(pair.mr.numpy(), away @ affine_of(pair.mr)), away @ pair.truth)
    _, found = searched(moved, 3)
    assert {start.name for start in found} <= {"centre of gravity", "centre of the box"}
    assert moved.errors_mm(in_ras(found[0])).mean() < 25


@pytest.mark.parametrize(
    ("spacing", "size", "expected"),
    [
        ((1.0, 1.0, 1.0), (200, 200, 200), [[10] * 3, [5] * 3, [2] * 3, [1] * 3]),
        ((3.0, 3.0, 3.0), (64, 64, 64), [[3] * 3, [2] * 3, [1] * 3, [1] * 3]),
        ((1.0, 1.0, 3.3), (400, 400, 60), [[10, 10, 3], [5, 5, 1], [2, 2, 1], [1, 1, 1]]),
        ((1.0, 1.0, 1.0), (200, 200, 16), [[10, 10, 2], [5, 5, 2], [2, 2, 2], [1, 1, 1]]),
        ((12.0, 12.0, 12.0), (30, 30, 30), [[1] * 3] * 4),
    ],
)
def test_the_pyramid_follows_voxels_and_size(spacing: tuple, size: tuple, expected: list) -> None:
    assert runner.pyramid(spacing, size, 4) == expected
    assert runner.pyramid(spacing, size, 1) == expected[-1:]


def test_a_start_that_elastix_gives_up_does_not_stop_the_others() -> None:
    def refine(start: Start) -> Start:
        if start.name == "bad":
            raise RuntimeError("too many samples map outside")
        return start

    good = Start("good", np.eye(4))
    refined, failures = worker.attempt(refine, [Start("bad", np.eye(4)), good])
    assert refined == [good]
    assert failures == ["bad: too many samples map outside"]


def test_a_pose_that_compares_too_little_has_no_score(pair: HeadPair) -> None:
    coarse, _ = searched(pair, 1)
    away = np.eye(4)
    away[2, 3] = 150.0
    assert coarse.overlap(np.eye(4))
    assert not coarse.overlap(away)
    assert coarse.score(away) == float("-inf")
    assert coarse.score(np.eye(4)) > 1


def test_a_reflection_exchanges_the_sides_of_a_plane() -> None:
    centre, normal = np.array([4.0, -7.0, 12.0]), np.array([0.8, 0.0, 0.6])
    matrix = worker.reflection(centre, normal)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(-1)
    np.testing.assert_allclose(apply(matrix, [centre - 30 * normal]), [centre + 30 * normal], atol=1e-9)
    in_plane = centre + np.array([3.0, 5.0, -4.0])
    np.testing.assert_allclose(apply(matrix, [in_plane]), [in_plane], atol=1e-9)


@pytest.mark.parametrize("turned_degrees", [(0, 0, 0), (0, 0, 20), (0, -20, 25)])
def test_a_mirrored_patient_is_found_however_the_head_lies_in_its_image(turned_degrees: tuple) -> None:
    """The moving image's voxels are exchanged left to right, its header is not."""
    shape, head = (48, 56, 48), rigid(turned_degrees, (0, 0, 0))
    grid = oblique_grid(shape, (4.2, 4.2, 4.2), (0, 0, 0), (0, 0, 0))  # about the origin, so that x only changes sign
    ct = scan("CT", shape, grid, np.linalg.inv(head), seed=1)
    mr = volume(scan("MR", shape, grid, np.eye(4), seed=2).numpy()[:, ::-1].copy(), grid)
    truth = LPS_RAS @ np.diag([-1.0, 1, 1, 1]) @ np.linalg.inv(head) @ LPS_RAS
    coarse, found = searched(HeadPair(ct, mr, truth), 4)
    best = max((coarse.climb(start.matrix) for start in found), key=lambda item: item[1])
    mirrored, score = coarse.climb(worker.mirror(Start("best", best[0]), coarse).matrix)
    assert coarse.apart_mm(mirrored, truth) < 4.0
    assert score > best[1]


def test_a_small_body_is_searched_on_finer_voxels() -> None:
    """A cube of 40 mm: of voxels of 6 mm it has too few, and elastix cannot mend a search that went astray."""
    truth, centre = rigid((4, -3, 5), (2, -2, 2)), (15.0, 65.0, -20.0)
    grid = oblique_grid((40, 40, 40), (1, 1, 1), (0, 0, 0), centre)
    other = oblique_grid((40, 40, 40), (1, 1, 1), (4, -3, 2), tuple(apply(truth, [centre])[0]))
    ct = scan("CT", (40, 40, 40), grid, np.eye(4), seed=1)
    small = HeadPair(ct, scan("MR", (40, 40, 40), other, np.linalg.inv(truth), seed=2), truth)
    coarse, found = searched(small, 4)
    best = max((coarse.climb(start.matrix) for start in found), key=lambda item: item[1])[0]
    assert coarse.spacing_mm < 3.5
    assert small.errors_mm(np.eye(4)).mean() > 8
    assert small.errors_mm(in_ras(Start("best", best))).mean() < 4.0


@pytest.mark.parametrize(("mm3", "expected"), [(4e6, 6.0), (432_000.0, 6.0), (54_000.0, 3.0), (2000.0, 1.0)])
def test_the_voxels_of_the_search_follow_the_smaller_body(mm3: float, expected: float) -> None:
    assert coarse_spacing_mm(mm3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((60, 60, 60), (1.0, 1.0, 1.0), (10, 10, 10)),
        ((60, 60, 9), (1.0, 1.0, 1.0), (10, 10, 4)),
        ((60, 60, 3), (1.0, 1.0, 1.0), (10, 10, 3)),
        ((60, 60, 6), (1.0, 1.0, 5.0), (10, 10, 6)),
    ],
)
def test_a_slab_keeps_slices(size: tuple, spacing: tuple, expected: tuple) -> None:
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    assert shrink(image, 6.0).GetSize() == expected


def test_a_start_that_is_lost_in_the_thorough_steps_still_disagrees(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: worker.Search, what: str, parameters: Parameters, start: Start) -> Start:
        if what != "finest level" and start.name != "header":
            raise RuntimeError("too many samples map outside")
        matrix = np.eye(4)
        matrix[0, 3] = 0.0 if start.name == "header" else 20.0
        return Start(start.name, matrix, start.score, start.number)

    monkeypatch.setattr(worker.Search, "_run", run)
    monkeypatch.setattr(worker.Search, "_mirrored", lambda self, start: start)
    images = (to_sitk(image) for image in (pair.ct, pair.mr, body_mask(pair.ct, "CT"), body_mask(pair.mr, "MR")))
    found = worker.Search(Runs(), list(images), {"starts": 2, "refined": 2, "landmarks": None}).run()  # type: ignore[arg-type]
    assert sorted(result["matrix"][0][3] for result in found["results"]) == [0.0, 20.0]
    assert len(found["failures"]) == 2


def test_the_matrix_of_an_itk_transform_is_read_in_lps() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = [3, -5, 7]
    transform = transform_from_matrix(matrix)
    np.testing.assert_allclose(runner.rigid_matrix(transform), LPS_RAS @ matrix @ LPS_RAS, atol=1e-12)


class Parameters(dict):
    """In the place of elastix' parameter object."""

    def GetParameter(self, _number: int, name: str) -> list[str]:  # noqa: N802 - elastix' name
        return [self[name]]

    def SetParameter(self, _number: int, name: str, value: list[str]) -> None:  # noqa: N802
        self[name] = value[0]


class Runs:
    """In the place of elastix: no more than its parameters and its log."""

    def parameters(self, *_about: object) -> Parameters:
        return Parameters(MaximumNumberOfIterations="500", NumberOfSpatialSamples="4096")

    def note(self, *_about: object) -> None:
        pass


@pytest.mark.parametrize(
    ("apart_mm", "steps"),
    [
        ({"finest level": 0.1}, ["finest level"]),
        ({"finest level": 2.0, "all levels": 0.1}, ["finest level", "all levels"]),
        (
            {"finest level": 2.0, "all levels": 1.0, "finest level, more samples": 0.5},
            ["finest level", "all levels", "finest level, more samples"],
        ),
    ],
)
def test_starts_that_disagree_take_longer(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, apart_mm: dict, steps: list
) -> None:
    """Each step sends the two starts to one pose and to another that lies so many mm away."""
    done: list[tuple[str, str, str]] = []

    def run(self: worker.Search, what: str, parameters: Parameters, start: Start) -> Start:
        done.append((what, parameters["MaximumNumberOfIterations"], parameters["NumberOfSpatialSamples"]))
        matrix = LPS_RAS @ pair.truth @ LPS_RAS
        matrix[0, 3] += apart_mm[what] * sum(name == what for name, *_ in done[:-1])
        return Start(start.name, matrix, start.score, start.number)

    monkeypatch.setattr(worker.Search, "_run", run)
    monkeypatch.setattr(worker.Search, "_mirrored", lambda self, start: start)
    images = (to_sitk(image) for image in (pair.ct, pair.mr, body_mask(pair.ct, "CT"), body_mask(pair.mr, "MR")))
    request = {"starts": 2, "refined": 2, "landmarks": None}
    found = worker.Search(Runs(), list(images), request).run()  # type: ignore[arg-type]
    work = {"finest level": ("150", "2048"), "all levels": ("500", "4096")}
    assert done == [(step, *work.get(step, ("500", "16384"))) for step in steps for _ in range(2)]
    first, second = (np.array(result["matrix"]) for result in found["results"])
    assert second[0, 3] - first[0, 3] == pytest.approx(apart_mm[steps[-1]])
