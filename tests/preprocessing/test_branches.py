"""Maps of a quantity are neither filtered nor normalised, whatever their role says."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline import volumes
from pipeline.cases import Record
from pipeline.preprocessing.branches import Branchd, LeaveMapsd
from pipeline.run import batch
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import SPEC_FILE, Spec, save_spec
from tests.phantoms.phantom import position_phantom

MAP = "N_QUANTITATIVE: adc: a map of a quantity"


def test_a_map_whose_role_names_no_unit_is_left_out() -> None:
    image = volumes.volume(np.ones((2, 2, 2), np.float32), np.eye(4))
    records = [Record("a", "ingest", "", "done", flags=(MAP,))]
    case = {"case_id": "a", "adc_aligned": image, "t2": image, "records": records}
    images = {"adc_aligned": "image", "t2": "image"}
    assert LeaveMapsd(images, ["adc", "t2"])(case).keys() == {"case_id", "t2", "records"}
    density = {**case, "records": [Record("a", "ingest", "", "done", flags=("N_NOT_HU: t2: other values",))]}
    assert LeaveMapsd(images, ["adc", "t2"])(density).keys() == {"case_id", "adc_aligned", "records"}
    branch = Branchd(images, ["adc", "t2"], "enhanced", may_lack=True)
    assert branch.writes() == {"adc_enhanced": "image?", "t2_enhanced": "image?"}


@pytest.mark.parametrize("unit", ["1e-6 mm2/s", "a.u."])
def test_no_prepared_adc_comes_out_of_a_run(tmp_path: Path, unit: str) -> None:
    """With its unit, and without: the header says that it is a map."""
    image = position_phantom((16, 14, 8), angles_deg=(0.0, 0.0, 0.0))
    image += 900.0 - float(image.min())
    kinds = {"t2": ("ORIGINAL", "PRIMARY", "M"), "adc": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}
    for number, (name, kind) in enumerate(kinds.items(), start=1):
        header = SeriesHeader(modality="MR", series_number=number, series_description=name, image_type=kind)
        write_series(image, tmp_path / "in" / name, header)
    rule = {role: [{"tag": "SeriesDescription", "matches": f"^{role}"}] for role in kinds}
    roles = {"t2": {"modality": "MR", "all": rule["t2"]}, "adc": {"modality": "MR", "unit": unit, "all": rule["adc"]}}
    save_spec(Spec.model_validate({"name": "x", "description": "x", "roles": roles}), tmp_path)
    plan = batch.Plan(tmp_path / "in", tmp_path / "out", tmp_path / SPEC_FILE, stages=("ingest", "preprocess"))
    ((_, prepared),) = batch.run(plan).values()
    assert prepared.status == "done", prepared.error
    assert {item.key for item in prepared.artifacts} >= {"t2_normalised", "t2_enhanced"}
    assert not any(item.key.startswith("adc") for item in prepared.artifacts)
    (adc,) = (tmp_path / "out" / "cases").glob("*/ingest/adc.nii.gz")
    np.testing.assert_allclose(nib.load(adc).get_fdata().max(), np.round(float(image.max())))


def test_a_run_without_anything_to_prepare_is_done(tmp_path: Path) -> None:
    write_series(position_phantom((8, 7, 6)), tmp_path / "in", SeriesHeader(modality="MR"))
    role = {"modality": "MR", "unit": "1e-6 mm2/s"}
    save_spec(Spec.model_validate({"name": "x", "description": "x", "roles": {"adc": role}}), tmp_path)
    plan = batch.Plan(tmp_path / "in", tmp_path / "out", tmp_path / SPEC_FILE, stages=("ingest", "preprocess"))
    ((_, prepared),) = batch.run(plan).values()
    assert (prepared.status, prepared.artifacts) == ("done", ())
