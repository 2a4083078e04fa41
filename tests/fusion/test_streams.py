"""Streams become one row of a case: volumes keep their voxels' size, what is missing is said, nothing is stretched."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandAffined

from pipeline.errors import CaseError
from pipeline.fusion.streams import PackStreamsd, RandShiftFramesd, ReadStreamsd, for_each, unpacked
from pipeline.preprocessing.intensity import foreground_zscore, window_channels
from pipeline.volumes import affine_of
from tests.phantoms.stream_cases import STREAMS, ReadArraysd, arrays_of

SIZES = {name: stream["size"] for name, stream in STREAMS.items()}


def reader(**streams: Any) -> ReadStreamsd:
    return ReadStreamsd(streams, ReadArraysd, ReadArraysd, window_channels, foreground_zscore)


def read_volume(folder: Path, array: np.ndarray, affine: np.ndarray, **stream: Any) -> tuple[MetaTensor, list[str]]:
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), folder / "x.nii.gz")
    case = reader(x={"kind": "volume", "intensity": "none", **stream})({"x": str(folder / "x.nii.gz")})
    return case["x"], case["flags"]


def test_what_cannot_be_read_is_named_with_its_stream_and_case(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(CaseError, match=r"E_[A-Z]+: mr of case-7: "):
        reader(mr={"kind": "volume", "size": [4, 4, 4]})({"case_id": "case-7", "mr": str(tmp_path / "x.nii.gz")})


def test_a_row_holds_what_it_was_packed_of() -> None:
    arrays, _ = arrays_of("additive", 1, 0, SIZES)
    case = {name: torch.from_numpy(array) for name, array in arrays.items()}
    packed = PackStreamsd(STREAMS)({**case, "case_id": "a", "mask": "x.nii.gz"})
    assert packed["image"].shape == (1, 760) and packed["available"].tolist() == [True] * 3
    assert set(packed) == {"image", "available", "case_id"}
    for name, part in unpacked(packed["image"], SIZES).items():
        assert torch.equal(part, case[name])
    del case["cxr"]
    packed = PackStreamsd(STREAMS)(case)
    assert packed["available"].tolist() == [True, False, True] and not packed["image"][:, 512:632].any()
    assert torch.equal(unpacked(packed["image"], SIZES)["cough"], case["cough"])


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ({}, "E_MISSING_ROLE"),
        ({"cxr": torch.zeros(1, 12, 11)}, "E_GRID"),
        ({"cxr": torch.full((1, 12, 10), float("nan"))}, "E_BLANK"),
    ],
)
def test_what_cannot_be_packed_is_refused(case: dict[str, Any], code: str) -> None:
    with pytest.raises(CaseError, match=code):
        PackStreamsd(STREAMS)(case)


def test_a_volume_is_cut_and_filled_around_its_middle(tmp_path: Path) -> None:
    array = np.arange(6 * 8 * 10).reshape(6, 8, 10) + 5.0
    found, flags = read_volume(tmp_path, array, np.eye(4), size=[4, 8, 12])
    assert torch.equal(found[0, :, :, 1:11], torch.from_numpy(array[1:5].astype(np.float32)))
    # the smallest value of the whole volume, which lies beyond what was kept
    assert (found[0, :, :, [0, 11]] == 5).all()
    assert flags == ["N_STREAM_CUT: x: 4 × 8 × 12 voxels of 6 × 8 × 10 were looked at"]
    _, flags = read_volume(tmp_path, array, np.eye(4), size=[6, 8, 10])
    assert flags == []


def test_voxels_become_as_large_as_asked_and_axes_are_turned(tmp_path: Path) -> None:
    """A ramp of 1 a mm along each axis stays one, whatever the voxels and wherever the axes run."""
    affine = np.array([[0, 0, 1.5, 0], [-2.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    places = np.stack(np.meshgrid(*map(np.arange, (12, 24, 16)), indexing="ij"), -1) @ affine[:3, :3].T
    found, _ = read_volume(tmp_path, places @ [1.0, 10.0, 100.0], affine, size=[6, 6, 6], spacing_mm=3)
    steps = [float(found[0].diff(dim=axis)[2, 2, 2]) for axis in range(3)]
    assert steps == pytest.approx([3.0, 30.0, 300.0], rel=1e-4)
    assert np.allclose(affine_of(found)[:3, :3], 3 * np.eye(3))


def test_ct_is_windowed_and_others_are_standardised(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.normal(40, 30, (10, 10, 10))
    array[:3] = -1000
    found, _ = read_volume(tmp_path, array, np.eye(4), size=[10, 10, 10], intensity="ct", window=[40, 400])
    assert torch.allclose(found[0], torch.from_numpy(np.clip((array - 40) / 400 + 0.5, 0, 1)).float(), atol=1e-6)
    found, _ = read_volume(tmp_path, array, np.eye(4), size=[10, 10, 10], intensity="zscore")
    assert float(found.mean()) < 5 and float(found[0, 3:].std()) == pytest.approx(1, abs=0.3)


def test_a_sound_begins_a_little_earlier_or_later() -> None:
    shift = RandShiftFramesd(["cough"], 1.0, 0.25)
    frames = torch.arange(16.0).expand(1, 8, 16)
    found = {tuple(shift.set_random_state(seed)({"cough": frames})["cough"][0, 0].tolist()) for seed in range(40)}
    assert len(found) == 9
    assert all(np.allclose(row, np.clip(np.arange(16) - step, 0, 15)) for row in found for step in [8 - int(row[8])])
    assert shift({}) == {}


def test_several_volumes_in_one_file_are_none(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"E_GRID: x: Expected one volume \(I, J, K\) as x, got 3"):
        read_volume(tmp_path, np.zeros((4, 4, 4, 3)), np.eye(4), size=[4, 4, 4])


def test_streams_are_moved_by_a_share_of_their_own_sides() -> None:
    sizes = {"small": (20, 20), "large": (80, 80)}
    make = partial(RandAffined, prob=1.0, mode="nearest", padding_mode="zeros")
    move = for_each(list(sizes), make, sizes, 0.1).set_random_state(0)
    farthest = dict.fromkeys(sizes, 0.0)
    for _ in range(60):
        case = {name: torch.zeros(1, *size) for name, size in sizes.items()}
        for name, size in sizes.items():
            case[name][0, size[0] // 2, size[1] // 2] = 1
        for name, image in move(case).items():
            place = torch.as_tensor(image)[0].nonzero()[0]
            farthest[name] = max(farthest[name], float((place - torch.tensor(sizes[name]) // 2).abs().max()))
    assert 1 <= farthest["small"] <= 2
    assert 6 <= farthest["large"] <= 8
