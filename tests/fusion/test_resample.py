"""To the network's voxel size and back: against images whose value at every point is known."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.resample import ToSpacingd, onto_grid, seen_mm, spacing_of, to_spacing
from pipeline.geometry import apply, orientation_of, spacing_mm
from pipeline.learning.table import Row
from pipeline.volumes import affine_of, volume

SHAPE = (40, 50, 30)
SIZES_MM = np.array([1.1, 0.9, 2.0])


def oblique() -> np.ndarray:
    """Turned, mirrored along two axes, anisotropic: nothing that is flipped or moved looks right."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", [10, -20, 5], degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag(SIZES_MM * [-1, -1, 1])
    affine[:3, 3] = [40, 30, -20]
    return affine


def sampled(function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    return function(apply(affine, index)).reshape(shape)


def ramp(points: np.ndarray) -> np.ndarray:
    return points @ np.array([0.3, -0.2, 0.5]) + 7


def of(function: Callable[[np.ndarray], np.ndarray]) -> MetaTensor:
    return volume(sampled(function, SHAPE, oblique()).astype(np.float32), oblique())


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.5, 1.0, 2.5), (0.7, 0.8, 1.0)])
def test_a_ramp_stays_a_ramp(spacing: tuple[float, float, float]) -> None:
    found = to_spacing(of(ramp), spacing)
    assert np.allclose(spacing_mm(affine_of(found)), spacing) and np.allclose(affine_of(found)[:3, 3], [40, 30, -20])
    wrong = np.abs(found.numpy()[0] - sampled(ramp, found.shape[1:], affine_of(found)))
    assert wrong[3:-3, 3:-3, 3:-3].max() < 1e-3
    # at the border the smoothing has nothing beyond it, but no air or water comes in
    assert wrong.max() < 0.5


def test_detail_that_is_too_fine_becomes_its_mean() -> None:
    stripes = np.broadcast_to(np.arange(60) % 2, (60, 60, 60)).astype(np.float32) * 100
    found = to_spacing(volume(stripes.copy(), np.eye(4)), (5.0, 5.0, 5.0)).numpy()[0]
    assert np.abs(found[2:-2, 2:-2, 2:-2] - 50).max() < 1


def test_labels_take_the_nearest_voxel_and_stay_labels() -> None:
    def ball(points: np.ndarray) -> np.ndarray:
        centre = apply(oblique(), [[20, 25, 15]])[0]
        return 3 * (np.linalg.norm(points - centre, axis=1) < 12)

    found = to_spacing(volume(of(ball).numpy().astype(np.uint8), oblique()), (1.0, 1.0, 1.0), nearest=True)
    assert found.dtype == torch.uint8 and set(np.unique(found.numpy())) == {0, 3}
    assert (found.numpy() == 3).sum() == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (0.8, 0.8, 0.8)])
def test_probabilities_come_back_onto_the_very_grid(spacing: tuple[float, float, float]) -> None:
    def chance(points: np.ndarray) -> np.ndarray:
        return 0.5 + 0.01 * (points @ np.array([0.3, -0.2, 0.5]))

    there = to_spacing(of(ramp), spacing)
    first = sampled(chance, there.shape[1:], affine_of(there))
    chances = volume(np.stack([first, 1 - first]).astype(np.float32), affine_of(there))
    back = onto_grid(chances, oblique(), SHAPE)
    assert tuple(back.shape) == (2, *SHAPE) and np.array_equal(affine_of(back), oblique())
    assert np.allclose(back.numpy().sum(0), 1, atol=1e-6)
    wrong = np.abs(back.numpy()[0] - sampled(chance, SHAPE, oblique()))
    assert wrong[4:-4, 4:-4, 2:-2].max() < 1e-4 and wrong.max() < 0.02


def test_what_lies_on_the_grid_is_left_alone() -> None:
    image = of(ramp)
    assert onto_grid(image, oblique(), SHAPE) is image


def test_a_case_keeps_the_grid_that_it_came_on() -> None:
    mask = volume(np.ones(SHAPE, np.uint8), oblique())
    step = ToSpacingd(["ct", "mr", "mask"], [3.0], ["mask"])
    case = step({"ct": of(ramp), "mask": mask, "case_id": "a"})
    assert case["ct"].shape == case["mask"].shape and case["mask"].dtype == torch.uint8 and "mr" not in case
    assert case["grid_shape"].tolist() == list(SHAPE) and np.array_equal(case["grid_affine"].numpy(), oblique())
    still = ToSpacingd(["ct"])({"ct": of(ramp)})
    assert tuple(still["ct"].shape) == (1, *SHAPE) and still["grid_shape"].tolist() == list(SHAPE)


def test_images_on_two_grids_are_refused() -> None:
    other = volume(np.zeros(SHAPE, np.float32), np.eye(4))
    with pytest.raises(CaseError, match="E_GRID"):
        ToSpacingd(["ct", "mr"], [3.0])({"ct": of(ramp), "mr": other})


@pytest.mark.parametrize("bad", [[0], [1, 2], [-1.0], [float("nan")], [1, 1, 0]])
def test_a_spacing_that_is_none_is_refused(bad: list[float]) -> None:
    with pytest.raises(UsageError, match=r"E_CONFIG.*voxel sizes"):
        spacing_of(bad)


def test_the_voxels_that_were_seen(tmp_path: Path) -> None:
    for name, affine in (("a", np.diag([1.0, 2.0, 3.0, 1.0])), ("b", oblique())):
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine), tmp_path / f"{name}.nii")
    rows = [Row(name, name, {"ct": tmp_path / f"{name}.nii"}, 0, None, (), 0) for name in "ab"]
    assert seen_mm(rows) == pytest.approx([0.9, 3.0])


def test_training_sees_that_voxel_size_and_its_checkpoint_keeps_it(workflow: Callable[..., ConfigWorkflow]) -> None:
    parser = workflow(spacing_mm=[2.0]).parser
    row = parser.get_parsed_content("split").training[0]
    case = parser.get_parsed_content("read")(row.item())
    assert np.allclose(spacing_mm(affine_of(case["image"])), 2.0)
    assert case["mask"].shape[1:] == case["image"].shape[1:]
    kept = parser.get_parsed_content("checkpoints").about["preparation"]
    # the sides of the simulated cases' oblique voxels
    assert kept["spacing_mm"] == [2.0] and kept["seen_mm"] == pytest.approx([np.hypot(0.1, 1.0), 2.0])


def test_numbers_keep_their_standard(workflow: Callable[..., ConfigWorkflow], additive: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(additive, tmp_path / "data")
    with (folder / "cases.csv").open() as stream:
        lines = [{**row, "age": 40 + number} for number, row in enumerate(csv.DictReader(stream))]
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    parser = workflow(dataset_dir=str(folder), table_columns=["age"]).parser
    found = parser.get_parsed_content("split")
    ages = [int(line["age"]) for line in lines if line["case_id"] in {row.case_id for row in found.training}]
    kept = parser.get_parsed_content("checkpoints").about["preparation"]["standard"]
    assert kept == {
        "columns": ["age"],
        "means": [pytest.approx(np.mean(ages))],
        "deviations": [pytest.approx(np.std(ages))],
    }


def test_axes_are_brought_into_the_network_s_order_and_back() -> None:
    case = ToSpacingd(["ct", "mask"], [], ["mask"], "LPS")({"ct": of(ramp), "mask": of(ramp)})
    turned = case["ct"]
    assert orientation_of(affine_of(turned)) == "LPS" and case["mask"].shape == turned.shape
    assert np.allclose(turned.numpy()[0], sampled(ramp, turned.shape[1:], affine_of(turned)), atol=1e-3)
    back = onto_grid(turned, oblique(), SHAPE)
    assert np.allclose(back.numpy(), of(ramp).numpy(), atol=1e-3) and np.array_equal(affine_of(back), oblique())


@pytest.mark.parametrize("bad", ["RA", "RLS", "XYZ", "RAST"])
def test_an_orientation_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(UsageError, match=r"E_CONFIG.*RAS or LPS"):
        ToSpacingd(["ct"], orientation=bad)
