from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from pipeline.body import body_mask
from pipeline.registration.quality import NO_HEADERS, Pair, QualityLimits, against_headers, judge, measure
from pipeline.volumes import affine_of, volume
from tests.registration.phantom import HeadPair, rigid

LIMITS = QualityLimits()
GOOD = {
    "start_disagreement_mm": 0.1,
    "nmi_other_start": 1.149,
    "nmi_before": 1.03,
    "nmi_after": 1.15,
    "nmi_mirrored": 1.11,
    "nmi_peak_fraction": 1.0,
    "local_shift_mm": 0.8,
    "astray_fraction": 0.0,
    "overlap_dice_after": 0.95,
    "header_kept": False,
    "translation_mm": 3.14,
    "rotation_deg": 3.72,
}


@pytest.fixture(scope="module")
def measured(pair: HeadPair) -> Pair:
    return Pair(pair.ct, pair.mr, body_mask(pair.ct, "CT"), body_mask(pair.mr, "MR"))


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        ({}, "pass", "NMI rose from 1.030 to 1.150"),
        (
            {"nmi_after": 1.03, "nmi_mirrored": None},
            "pass",
            "the images are as their headers place them; NMI is 1.030 there.",
        ),
        ({"nmi_before": None}, "pass", "by their headers the images do not meet"),
        (
            {"nmi_before": 1.151},
            "pass",
            "had aligned the images already; moved by 3.1 mm and 3.7°, NMI is no worse: 1.151",
        ),
        ({"start_disagreement_mm": 1.0}, "pass", "agree within 1.00 mm"),
        ({"start_disagreement_mm": 1.1}, "warn", "1.1 mm apart"),
        ({"start_disagreement_mm": 1.001}, "warn", "1.001 mm apart (limit 1 mm)"),
        ({"start_disagreement_mm": 3.1}, "fail", "3.1 mm apart"),
        ({"start_disagreement_mm": 90.0, "nmi_other_start": 1.08}, "fail", "90.0 mm apart (limit 1 mm)."),
        ({"start_disagreement_mm": 90.0, "nmi_other_start": 1.05}, "warn", "clearly better (NMI 1.150, not 1.050)"),
        ({"start_disagreement_mm": 90.0, "nmi_other_start": None}, "warn", "clearly better (NMI 1.150, not 1.000)"),
        ({"start_disagreement_mm": 90.0, "nmi_other_start": 1.05, "nmi_peak_fraction": 0.5}, "fail", "90.0 mm apart"),
        ({"start_disagreement_mm": None}, "warn", "Only one start"),
        ({"nmi_before": 1.16}, "fail", "NMI fell from 1.160 to 1.150"),
        ({"nmi_after": 1.005, "nmi_before": 1.004}, "fail", "do not match"),
        ({"nmi_mirrored": None}, "pass", "NMI rose"),
        ({"nmi_mirrored": 1.151}, "pass", "NMI rose"),
        ({"nmi_mirrored": 1.16}, "fail", "left and right may be exchanged"),
        ({"nmi_after": None, "nmi_peak_fraction": None}, "fail", "too little"),
        ({"nmi_peak_fraction": 0.5}, "warn", "only 50%"),
        ({"local_shift_mm": 2.4}, "pass", "NMI rose"),
        ({"local_shift_mm": 2.6}, "warn", "better 2.6 mm away"),
        ({"local_shift_mm": 3.6}, "fail", "another patient"),
        ({"local_shift_mm": None}, "warn", "Too little is in view"),
        ({"astray_fraction": 0.3}, "warn", "30% of the body fits better mirrored or in reversed order"),
        ({"overlap_dice_after": 0.74}, "pass", "NMI rose"),
        ({"overlap_dice_after": 0.6}, "warn", "Dice of 0.60"),
        ({"overlap_dice_after": 0.6499}, "warn", "Dice of 0.6499 (limit 0.65)"),
        ({"overlap_dice_after": 0.3}, "fail", "Dice of 0.30"),
        ({"overlap_dice_after": None}, "fail", "do not meet"),
        ({"header_kept": True, "start_disagreement_mm": 9.0}, "warn", "was kept: the best start ends 9.0 mm from it"),
        ({"header_kept": True, "start_disagreement_mm": 0.9}, "pass", "NMI rose"),
        ({"nmi_peak_fraction": 0.5, "overlap_dice_after": 0.3}, "fail", "Dice of 0.30"),
        (
            {"header_conflict_mm": 8.8, "header_conflict_nmi": 1.15, "overlap_dice_after": 0.3},
            "fail",
            "match best 8.8 mm away from there (NMI 1.1500, by the headers 1.0300): the images were believed.",
        ),
        (
            {
                "header_kept": True,
                "header_conflict_mm": 8.8,
                "header_conflict_nmi": 1.031,
                "start_disagreement_mm": 12.0,
                "nmi_after": 1.03,
                "nmi_mirrored": None,
                "local_shift_mm": 6.2,
            },
            "warn",
            "(NMI 1.0310, by the headers 1.0300): the headers were believed.",
        ),
    ],
)
def test_verdict(change: dict, verdict: str, words: str) -> None:
    got, reasons = judge({**GOOD, **change}, LIMITS)
    assert got == verdict
    assert words in reasons[0]


@pytest.mark.parametrize("name", [name for name in asdict(LIMITS) if not name.startswith("headers_")])
def test_every_limit_decides(name: str) -> None:
    """Numbers that lie just on the good side of the limits are judged otherwise once that limit alone is tightened."""
    edge = {
        "start_disagreement_pass_mm": ({"start_disagreement_mm": 0.9}, 0.8),
        "start_disagreement_warn_mm": ({"start_disagreement_mm": 2.9}, 2.8),
        "start_clear_gain": ({"start_disagreement_mm": 90.0, "nmi_other_start": 1.07}, 2.5),
        "nmi_noise": ({"nmi_before": 1.151}, 0.0005),
        "nmi_least": ({"nmi_after": 1.02, "nmi_before": None, "nmi_mirrored": None}, 1.03),
        "overlap_dice_pass": ({"overlap_dice_after": 0.8}, 0.85),
        "overlap_dice_warn": ({"overlap_dice_after": 0.6}, 0.65),
        "peak_pass": ({"nmi_peak_fraction": 0.8}, 0.85),
        "local_shift_pass_mm": ({"local_shift_mm": 2.4}, 2.3),
        "local_shift_warn_mm": ({"local_shift_mm": 3.4}, 3.3),
        "astray_pass": ({"astray_fraction": 0.07}, 0.06),
    }
    change, tighter = edge[name]
    before = judge({**GOOD, **change}, LIMITS)[0]
    after = judge({**GOOD, **change}, QualityLimits(**{name: tighter}))[0]
    severity = ["pass", "warn", "fail"]
    assert severity.index(after) > severity.index(before)


def test_the_true_pose_is_a_sharp_peak_and_passes(measured: Pair, pair: HeadPair) -> None:
    quality = measure(measured, [pair.truth, pair.truth], None, LIMITS)
    assert quality["verdict"] == "pass", quality["reason"]
    assert quality["nmi_peak_fraction"] >= 0.9
    assert quality["start_disagreement_mm"] == 0


def test_headers_of_one_frame_stand_unless_the_images_speak_clearly(pair: HeadPair) -> None:
    aligned = volume(pair.mr.numpy(), np.linalg.inv(pair.truth) @ affine_of(pair.mr))
    right = Pair(pair.ct, aligned, body_mask(pair.ct, "CT"), body_mask(aligned, "MR"))
    near, far = rigid((0, 0, 0), (0, 0, 1)), rigid((0, 0, 0), (0, 8, 0))
    assert against_headers(right, near, LIMITS, True) == {**NO_HEADERS, "header_kept": True}  # it is a little worse
    told = against_headers(right, far, LIMITS, True)
    assert told["header_kept"] and told["header_conflict_mm"] == pytest.approx(8)
    assert told["header_conflict_nmi"] == right.nmi(far) < right.nmi(np.eye(4))
    assert "the search for the best match ends 8.0 mm away" in judge({**GOOD, **told, "nmi_before": 1.15}, LIMITS)[1][0]
    wrong = volume(aligned.numpy(), far @ affine_of(aligned))  # now the headers are 8 mm off
    moved = Pair(pair.ct, wrong, body_mask(pair.ct, "CT"), body_mask(wrong, "MR"))
    told = against_headers(moved, far, LIMITS, True)
    assert not told["header_kept"] and told["header_conflict_mm"] == pytest.approx(8)
    assert against_headers(moved, far, LIMITS, False) == NO_HEADERS  # of two frames nothing else is expected


def test_numbers_of_a_known_motion(measured: Pair, pair: HeadPair) -> None:
    centre = measured.points.mean(axis=0)
    turn = rigid((0, 0, 12), (0, 0, 0))
    turn[:3, 3] = centre - turn[:3, :3] @ centre + [3, -4, 12]
    quality = measure(measured, [turn, turn @ rigid((0, 0, 0), (0, 0, 2.5))], None, LIMITS)
    assert quality["rotation_deg"] == pytest.approx(12)
    assert quality["translation_mm"] == pytest.approx(13)
    assert quality["start_disagreement_mm"] == pytest.approx(2.5)


def test_points_out_of_the_moving_images_view_do_not_count_for_the_disagreement(measured: Pair, pair: HeadPair) -> None:
    half = pair.mr.shape[3] // 2
    part = volume(pair.mr.numpy()[..., :half], affine_of(pair.mr))
    narrow = Pair(
        pair.ct, part, body_mask(pair.ct, "CT"), volume((part.numpy() > 100).astype(np.uint8), affine_of(part))
    )
    turned = pair.truth @ rigid((3, 0, 0), (0, 0, 0))
    seen, all_of_it = (
        measure(p, [pair.truth, turned], None, LIMITS)["start_disagreement_mm"] for p in (narrow, measured)
    )
    points = measured.points
    inside = np.linalg.inv(affine_of(part)) @ pair.truth
    index = points @ inside[:3, :3].T + inside[:3, 3]
    kept = ((index >= 0) & (index <= np.array(part.shape[1:]) - 1)).all(axis=1)
    apart = np.linalg.norm((points - points @ rigid((3, 0, 0), (0, 0, 0))[:3, :3].T), axis=1)
    assert seen == pytest.approx(apart[kept].max(), rel=0.02)
    assert all_of_it == pytest.approx(apart.max(), rel=1e-6)


@pytest.mark.parametrize("wrong", [rigid((0, 0, 0), (0, 25, 0)), rigid((20, 0, 30), (0, 0, 0))])
def test_a_wrong_pose_does_not_pass(measured: Pair, pair: HeadPair, wrong: np.ndarray) -> None:
    quality = measure(measured, [pair.truth @ wrong, pair.truth], None, LIMITS)
    assert quality["verdict"] == "fail"
    right = measure(measured, [pair.truth, pair.truth @ wrong], None, LIMITS)
    assert (right["verdict"], right["nmi_other_start"]) == ("warn", quality["nmi_after"])
    assert quality["nmi_after"] < right["nmi_after"] - 0.05


def test_a_pose_out_of_view_is_not_measured(measured: Pair, pair: HeadPair) -> None:
    quality = measure(measured, [rigid((0, 0, 0), (500, 0, 0)), pair.truth], None, LIMITS)
    assert quality["nmi_after"] is None
    assert quality["nmi_peak_fraction"] is None
    assert quality["overlap_dice_after"] is None
    assert quality["verdict"] == "fail"


def test_overlap_of_two_boxes_by_hand() -> None:
    """10 voxels long against 10 voxels shifted by 2, seen through a view that ends 1 voxel behind the second."""
    bodies = [np.zeros((20, 8, 8), np.uint8) for _ in range(2)]
    bodies[0][4:14, 2:6, 2:6] = 1
    bodies[1][6:16, 2:6, 2:6] = 1
    fixed = volume(bodies[0], np.diag([2.0, 2.0, 3.0, 1.0]))
    moving = volume(
        bodies[1][5:17], affine_of(fixed) @ np.array([[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )
    pair = Pair(
        volume(fixed.numpy() * 1.0, affine_of(fixed)), volume(moving.numpy() * 1.0, affine_of(moving)), fixed, moving
    )
    # In view are voxels 5 to 16: 9 of the first body (5-13), 10 of the second (6-15), 8 of both (6-13).
    assert pair.overlap_dice(np.eye(4)) == pytest.approx(2 * 8 / (9 + 10))
