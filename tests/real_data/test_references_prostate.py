"""ProstateX-0000: of seven series of one study, the data spec picks those that PI-CAI's own converter picks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest

from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.store import records
from tests.real_data.references import canonical
from tests.real_data.slices import images_below, slices_of, worst_error

#: Role -> folder of the series that the settings in PI-CAI's `dcm2mha_settings.json` name for it.
CHOSEN = {
    "t2w": "4.000000-t2tsetra-00702",
    "adc": "7.000000-ep2ddifftraDYNDISTADC-48780",
    "hbv": "8.000000-ep2ddifftraDYNDISTCALCBVAL-83202",
}
STUDY = "picai_prostatex/tests/input/dcm/ProstateX/ProstateX-0000/07-07-2011"


@pytest.fixture(scope="module")
def ingested(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prostate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_HOME", str(tmp_path_factory.mktemp("home")))
        spec = shipped("data_specs", "prostate_mr.yaml")
        batch.run(batch.Plan(real_images / STUDY, out, spec, stages=("ingest",)))
    return out


@pytest.mark.parametrize("role", CHOSEN)
def test_each_role_has_the_voxels_of_its_series(real_images: Path, ingested: Path, role: str) -> None:
    (path,) = (ingested / "cases").glob(f"*/ingest/{role}.nii.gz")
    image = nib.load(path)
    slices = slices_of(*images_below(real_images / STUDY / CHOSEN[role]))
    assert image.shape[2] == len(slices) == 19
    assert worst_error(canonical(image.dataobj, image.affine), slices) < 1e-3


def test_the_case_is_done(ingested: Path) -> None:
    ((record,),) = records.of_run(ingested).values()
    assert record.status == "done" and {artifact.key for artifact in record.artifacts} == {
        *CHOSEN,
        "frames",
        "sections",
    }


def test_every_series_has_a_verdict_and_those_left_out_a_reason(ingested: Path) -> None:
    """The sagittal and the coronal T2, three diffusion weightings in one series, and a proton-density volume."""
    table = pd.read_csv(ingested / "series.csv").fillna("")
    assert sorted(table[table.role != ""].role) == sorted(CHOSEN)
    left = table[table.role == ""]
    reasons = "\n".join(left.reason)
    assert len(left) == 6 and (left.verdict == "not chosen").all() and (left.code == "").all()
    assert "t2w: sagittal instead of axial" in reasons and "t2w: coronal instead of axial" in reasons
    weightings = left[left.part != ""]
    assert list(weightings.part) == ["b 50", "b 400", "b 800"] and weightings.notes.str.contains("N_SPLIT").all()
    assert (weightings.instances == 19).all()
    assert weightings.reason.str.contains("hbv: `any` asks").all()
