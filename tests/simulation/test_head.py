from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from nilearn import datasets

from pipeline import geometry
from pipeline.errors import CaseError, UsageError
from pipeline.simulation.head import FAT_MM, HeadTemplate, load_head_template, tissue_fractions
from pipeline.simulation.subject import Subject, Warp, lesion_labels, random_lesions, random_rigid, random_subject
from pipeline.simulation.tissues import T1_WEIGHTED, TISSUES, attenuation_hu

STEP_MM = 0.05
RAY = np.array([0.0, -20.0, 10.0]) + np.arange(40.0, 125.0, STEP_MM)[:, None] * [0.75, 0.0, 0.6614]  # to the right, up


def hu_at(template: HeadTemplate, points: list[list[float]]) -> np.ndarray:
    fractions = tissue_fractions(template, points, edge_mm=1.0)
    return attenuation_hu((TISSUES[name], share) for name, share in fractions.items())


def test_hu_at_places_every_anatomist_knows(template: HeadTemplate) -> None:
    centrum_semiovale = [[-26.0, -20.0, 34.0], [26.0, -20.0, 34.0]]
    assert hu_at(template, centrum_semiovale) == pytest.approx([31.0, 31.0], abs=1.0)
    head_of_caudate_left, splenium, ventricle_right = hu_at(template, [[-12, 14, 6], [0, -38, 10], [6, 8, 10]])
    assert head_of_caudate_left == pytest.approx(39.0, abs=2.0)
    assert splenium == pytest.approx(31.0, abs=2.0)
    assert ventricle_right < 20.0
    far, pharynx, globe = hu_at(template, [[0, 160, 0], [0, 14, -95], [-32, 66, -40]])
    assert far == pytest.approx(-1000) and pharynx == pytest.approx(-1000, abs=1) and globe == pytest.approx(8, abs=1)


def test_left_is_left(template: HeadTemplate) -> None:
    """The maxillary sinuses differ: the right one's lower border lies 3 mm lower."""
    left, right = hu_at(template, [[-29.0, 60.0, -84.5], [30.0, 59.0, -84.5]])
    assert right < -900 < 0 < left


def test_layers_along_a_ray_out_of_the_head(template: HeadTemplate) -> None:
    shares = tissue_fractions(template, RAY, edge_mm=0.5)
    length = {name: share.sum() * STEP_MM for name, share in shares.items()}
    brain_distance, skin_distance = template.brain_distance_mm(RAY), template.skin_distance_mm(RAY)
    # the ray meets the layers at a slant, which lengthens its way; the distances' slope along it says by how much
    skull, scalp = (brain_distance > 2.5) & (brain_distance < 9), (skin_distance > -4) & (skin_distance < 0)
    slope_skull, slope_scalp = (
        np.median(np.gradient(distance, STEP_MM)[layer])
        for distance, layer in ((brain_distance, skull), (skin_distance, scalp))
    )
    assert 0.9 < slope_skull < 1.0 and 0.8 < slope_scalp < 1.0
    assert length["cortical"] * slope_skull == pytest.approx(3.5, rel=0.05)
    assert length["diploe"] * slope_skull == pytest.approx(3.0, rel=0.05)
    assert length["fat"] * slope_scalp == pytest.approx(FAT_MM, rel=0.05)
    middle = {name: (share * np.arange(len(share))).sum() / share.sum() for name, share in shares.items()}
    assert middle["gray"] < middle["diploe"] < middle["muscle"] < middle["fat"]
    bone = attenuation_hu((TISSUES[name], share) for name, share in shares.items())
    assert bone.max() == pytest.approx(1300, abs=1) and bone[-1] == pytest.approx(-1000)


def test_shares_are_shares_and_the_brain_has_its_volume(template: HeadTemplate) -> None:
    axis = np.arange(-130.0, 131.0, 5.0)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    shares = tissue_fractions(template, points, edge_mm=5.0)
    total = sum(shares.values())
    assert min(share.min() for share in shares.values()) >= 0 and total.max() <= 1 + 1e-6
    brain_ml = (shares["gray"] + shares["white"]).sum() * 0.125
    maps = (datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1))
    assert brain_ml == pytest.approx(sum(image.get_fdata().sum() for image in maps) / 1000, rel=0.02)
    solid = (template.skin_distance_mm(points) < -5) & (template.cavity_distance_mm(points) > 10)
    assert total[solid] == pytest.approx(np.ones(solid.sum()), abs=1e-6)


def test_without_nilearn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(UsageError, match=r"E_EXTRA.*tandem-imaging\[demo\]"):
        load_head_template()


def test_lesions_lie_apart_in_the_white_matter_with_their_volume(template: HeadTemplate) -> None:
    lesions = random_lesions(template, np.random.default_rng(3), 4)
    centres = np.array([lesion.shape.centre_mm for lesion in lesions])
    assert template.white(centres).min() >= 0.9
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 22
    axis = np.arange(-90.0, 90.0, 1.5)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    volume = sum(4 / 3 * np.pi * np.prod(lesion.shape.radii_mm) for lesion in lesions)
    assert lesion_labels(lesions, points).sum() * 1.5**3 == pytest.approx(volume, rel=0.02)
    with pytest.raises(CaseError, match="E_INPUT"):
        random_lesions(template, np.random.default_rng(3), 500)


def test_lesions_show_in_ct_and_mr(template: HeadTemplate) -> None:
    still = Warp(np.zeros((3, 11, 11, 11)), 40.0)
    lesion = random_lesions(template, np.random.default_rng(8), 1)[0]
    subject = Subject(template, still, (lesion,), np.eye(4), np.eye(4))
    affine = np.eye(4)
    affine[:3, 3] = np.round(lesion.shape.centre_mm) - 15
    ct = subject.scan_ct((31, 31, 31), affine, np.random.default_rng(0)).numpy()[0]
    mr = subject.scan_mr((31, 31, 31), affine, T1_WEIGHTED, np.random.default_rng(0)).numpy()[0]
    inside = subject.labels_ct((31, 31, 31), affine).numpy()[0] == 1
    core = np.zeros_like(inside)
    core[14:17, 14:17, 14:17] = True
    assert inside[core].all() and not inside[0].any()
    assert ct[core].mean() == pytest.approx(lesion.tissue.hu, abs=4 * 8 / np.sqrt(27))
    assert abs(lesion.tissue.hu - 31) >= 15
    white = template.white(geometry.apply(affine, np.argwhere(~inside))) > 0.95
    assert mr[core].mean() < 0.85 * mr[~inside][white].mean()


def test_the_mr_shows_the_head_moved_by_the_transform(template: HeadTemplate) -> None:
    """A grid moved by T shows what the unmoved grid shows of a head that was not moved, voxel for voxel."""
    subject = random_subject(template, np.random.default_rng(11), 10.0, 15.0, lesions=2)
    unmoved = replace(subject, ct_to_mr=np.eye(4))
    shape = (21, 19, 17)
    affine = np.diag([7.0, 8.0, 9.0, 1.0])
    affine[:3, 3] = subject.centre_ct - [70, 72, 72]

    def scan(patient: Subject, grid: np.ndarray) -> np.ndarray:
        return patient.scan_mr(shape, grid, T1_WEIGHTED, np.random.default_rng(0)).numpy()[0]

    expected = scan(unmoved, affine)
    assert np.ptp(expected) > 500
    assert np.abs(scan(subject, subject.ct_to_mr @ affine) - expected).max() < 1e-3
    assert np.abs(scan(subject, affine) - expected).max() > 200


def test_random_rigid_turns_about_the_centre_within_its_limits() -> None:
    centre = np.array([10.0, -200.0, 700.0])
    matrices = [random_rigid(np.random.default_rng(seed), centre, 10.0, 15.0) for seed in range(50)]
    shifts = np.array([geometry.apply(matrix, [centre])[0] - centre for matrix in matrices])
    assert 12 < np.abs(shifts).max() <= 15
    rotations = np.array([matrix[:3, :3] for matrix in matrices])
    assert rotations @ rotations.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (50, 1, 1)), abs=1e-12)
    # three turns of up to 10 degrees make at most 30, and with 50 draws some are beyond 10
    angles = np.degrees(np.arccos((np.trace(rotations, axis1=1, axis2=2) - 1) / 2))
    assert 10 < angles.max() < 20


def test_landmarks_are_the_same_anatomy_in_every_patient(template: HeadTemplate) -> None:
    subjects = [random_subject(template, np.random.default_rng(seed), 10.0, 15.0, 1) for seed in (1, 2)]
    found = [
        subject.warp(geometry.apply(np.linalg.inv(subject.ct_pose), subject.landmarks_ct())) for subject in subjects
    ]
    assert len(found[0]) >= 30
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert template.brain_distance_mm(found[0]).max() < -3
    assert np.abs(subjects[0].landmarks_ct() - subjects[1].landmarks_ct()).max() > 3
