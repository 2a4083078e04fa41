"""Enhanced multi-frame files, read back by highdicom and compared with the position oracle."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pipeline import geometry, volumes
from pipeline.simulation.dicom import SeriesHeader
from tests.phantoms.enhanced import Layout, write_enhanced
from tests.phantoms.oracle import Truth, judge_volumes
from tests.phantoms.phantom import position_phantom

SHAPE = (10, 8, 7)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("layout", [Layout(), Layout(shuffled=True), Layout(shuffled=True, own_rescale=True)])
def test_highdicom_reads_the_phantom_where_it_is(tmp_path: Path, modality: str, layout: Layout) -> None:
    image = position_phantom(SHAPE)
    path = write_enhanced([image], tmp_path / "E", SeriesHeader(modality=modality), layout)
    volume = hd.imread(path).get_volume(apply_real_world_transform=False, apply_modality_transform=True)
    # highdicom: (slice, row, column) and LPS
    values = np.asarray(volume.array, dtype=float).transpose(2, 1, 0)
    affine = geometry.LPS_RAS @ np.asarray(volume.affine)[:, [2, 1, 0, 3]]
    assert judge_volumes([(values, affine)], [Truth(SHAPE, volumes.affine_of(image))]) == "right"


def test_shuffled_frames_stand_in_another_order_than_their_positions(tmp_path: Path) -> None:
    file = dcmread(write_enhanced([position_phantom(SHAPE)], tmp_path / "E", layout=Layout(shuffled=True)))
    normal = np.cross(*np.reshape(_group(file, 0, "PlaneOrientation").ImageOrientationPatient, (2, 3)).astype(float))
    along = [
        float(np.dot(np.asarray(_group(file, index, "PlanePosition").ImagePositionPatient, float), normal))
        for index in range(7)
    ]
    assert len(np.unique(np.sign(np.diff(along)))) == 2
    assert np.diff(sorted(along)) == pytest.approx([2.5] * 6, abs=1e-5)


@pytest.mark.parametrize("apart", ["stack", "time", "echo"])
def test_two_volumes_are_told_apart_by_their_functional_groups(tmp_path: Path, apart: str) -> None:
    image = position_phantom(SHAPE)
    brighter = volumes.volume(image.numpy() + np.float32(100), volumes.affine_of(image))
    header = SeriesHeader(modality="MR", te_ms=10.0)
    file = dcmread(write_enhanced([image, brighter], tmp_path / "E", header, Layout(shuffled=True, apart=apart)))
    frames = file.pixel_array.reshape(14, -1)
    where = {"stack": ("FrameContent", "StackID"), "time": ("FrameContent", "TemporalPositionIndex")}
    sequence, keyword = where.get(apart, ("MREcho", "EffectiveEchoTime"))
    labels = np.array([str(_group(file, index, sequence)[keyword].value) for index in range(14)])
    places = np.array([_group(file, index, "FrameContent").InStackPositionNumber for index in range(14)])
    first, second = sorted(set(labels))
    for place in range(1, 8):
        (low,) = frames[(labels == first) & (places == place)]
        (high,) = frames[(labels == second) & (places == place)]
        assert np.all(np.abs(high.astype(int) - low - 100) <= 1)


def _group(file, index: int, name: str):
    return file.PerFrameFunctionalGroupsSequence[index][f"{name}Sequence"].value[0]
