"""The table of 33 sarcomas that the benchmark makes: SUVmax and volume are the files' own, its AUROC is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.radiomics_signature import SUV_MAX, VOLUME, write_features
from benchmarks.signature.nested import Design, nested
from benchmarks.signature.table import Cohort, Columns, read_cohort
from pipeline.evaluation.intervals import delong


@pytest.fixture(scope="module")
def cohort(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    table = write_features(real_images / "sts_fusion_lowres", tmp_path_factory.mktemp("sts") / "features.csv")
    return read_cohort(table, Columns("lung_metastasis"))


def test_the_table_has_the_files_values(cohort: Cohort, real_images: Path) -> None:
    assert len(cohort.case_ids) == 33 and cohort.outcome.event.sum() == 12
    for at in (0, 9, 32):
        folder = real_images / "sts_fusion_lowres" / cohort.case_ids[at]
        mask = nib.load(folder / "GTV.nii.gz")
        inside = np.asarray(mask.dataobj) > 0
        suv = nib.load(folder / "PET_SUVx100.nii.gz").get_fdata()[inside] / 100
        assert cohort.values[at, cohort.features.index(SUV_MAX)] == pytest.approx(suv.max())
        voxels = inside.sum() * abs(np.linalg.det(mask.affine[:3, :3]))
        assert cohort.values[at, cohort.features.index(VOLUME)] == pytest.approx(voxels, rel=0.05)


def test_suv_max_tells_metastases_and_ct_does_not(cohort: Cohort) -> None:
    """Of this set it is known that PET tells the outcome, SUVmax with an AUROC of .81 ± .13, and CT does not."""
    suv = cohort.values[:, cohort.features.index(SUV_MAX)]
    assert 0.68 < delong(suv, cohort.outcome.event).values[0] < 0.94
    own = [at for at, name in enumerate(cohort.features) if name.startswith("ct_")]
    ct = Cohort(cohort.case_ids, cohort.patients, tuple(f"f{at}" for at in own), cohort.values[:, own], cohort.outcome)
    found = nested(ct, Design(repeats=2)).concordance(ct).value
    assert abs(found - 0.5) < 0.2
