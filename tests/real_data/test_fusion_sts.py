"""The table of the real fusion study: every patient's files on one grid, a tumour in each, folds that part patients."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.fusion_sts import MODES, SETS, SINGLES, families, name_of, variant, write_table
from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet
from pipeline.geometry import same_grid
from pipeline.learning.table import Row, read_table, with_folds


@pytest.fixture(scope="module")
def rows(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("study")
    table = write_table(real_images / "sts_fusion_lowres", folder)
    assert [path.name for path in folder.iterdir()] == ["cases.csv"]  # the images stay where they are
    return with_folds(read_table(table, ("ct", "mr", "pet"), 0), 5, 0)


def test_thirty_three_patients_in_five_folds(rows: list[Row]) -> None:
    assert len({row.patient_id for row in rows}) == len(rows) == 33
    assert sorted(Counter(row.fold for row in rows).values()) == [6, 6, 7, 7, 7]


def test_images_and_mask_lie_on_one_grid(rows: list[Row]) -> None:
    for row in rows[:3]:
        assert row.mask is not None
        mask = nib.load(row.mask)
        assert 0 < np.asarray(mask.dataobj).mean() < 0.2
        for path in row.images.values():
            image = nib.load(path)
            assert same_grid(image.shape, image.affine, mask.shape, mask.affine)


def test_a_patient_without_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "STS_001").mkdir(parents=True)
    with pytest.raises(UsageError) as error:
        write_table(tmp_path / "data", tmp_path / "out")
    assert error.value.code == "E_TABLE"
    assert "CT.nii.gz of STS_001" in str(error.value)


def test_all_networks_have_as_many_parameters() -> None:
    """Within ten percent of the middle; and every pair that is tested is trained."""
    variants = [variant(names, mode) for names in SETS for mode in MODES] + [variant(one, "single") for one in SINGLES]
    counts = []
    for item in variants:
        settings = item.settings
        net = FusionNet(
            settings["modalities"],
            classes=0,
            mode=settings["network_def::mode"],
            width=settings["network_def::width"],
            levels=4,
        )
        counts.append(sum(parameter.numel() for parameter in net.parameters()))
    assert max(counts) / min(counts) < 1.1 / 0.9
    names = {item.name for item in variants}
    assert all({*pair} <= names for pairs in families().values() for pair in pairs)
    assert name_of(("ct", "pet"), "late") in names
