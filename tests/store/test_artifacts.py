from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline import volumes
from pipeline.cases import Document
from pipeline.errors import CaseError, PipelineError
from pipeline.store import artifacts
from pipeline.store.files import sha256_file

AFFINE = np.array([[-0.9, 0.1, 0.0, 5.0], [0.1, 0.9, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


def test_whole_numbers_stay_int16_and_others_become_float32(tmp_path: Path) -> None:
    for array, dtype in (
        (np.array([[[-1024, 3071]]], dtype=np.int32), np.int16),
        (np.array([[[0, 40000]]], dtype=np.int32), np.float32),
        (np.array([[[0.25, 1e-3]]], dtype=np.float64), np.float32),
    ):
        path, _ = artifacts.save("x", "image", volumes.volume(array, AFFINE), tmp_path)
        image = nib.load(path)
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(np.asarray(image.dataobj), array.astype(dtype))


def test_sform_and_qform_are_equal_and_say_mm(tmp_path: Path) -> None:
    path, _ = artifacts.save("x", "image", volumes.volume(np.zeros((3, 4, 5)), AFFINE), tmp_path)
    header = nib.load(path).header
    np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1


def test_channels_come_last_in_the_file(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    path, artifact = artifacts.save("x", "image", volumes.volume(array, AFFINE), tmp_path)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), np.moveaxis(array, 0, -1))
    assert artifact.geometry.shape == (4, 5, 6)


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    image = volumes.volume(np.arange(60).reshape(3, 4, 5), AFFINE)
    digests = {artifacts.save("x", "image", image, tmp_path / name)[1].sha256 for name in ("a", "b")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("image", [0.0, np.nan]),
        ("image", [0.0, np.inf]),
        ("label", [0.0, 1.5]),
        ("label", [-1, 1]),
        ("label", [0, 70000]),
        ("probability", [0.0, 1.01]),
        ("probability", [-0.01, 1.0]),
    ],
)
def test_values_that_do_not_fit_the_kind_are_refused(tmp_path: Path, kind: str, values: list[float]) -> None:
    with pytest.raises(CaseError, match="E_DTYPE"):
        artifacts.save("x", kind, volumes.volume(np.array(values).reshape(1, 1, 2), AFFINE), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_write_that_lies_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk does with some writers: the call returns, the file is cut (FAULTS: the first of the worst)."""

    def cut(image: MetaTensor, path: Path) -> None:
        artifacts._write_nifti(image, path)
        path.write_bytes(path.read_bytes()[:200])

    form = artifacts.FORMATS["image"]
    lying = artifacts.Format(form.suffix, form.prepare, cut, form.check)
    monkeypatch.setattr(artifacts, "FORMATS", {**artifacts.FORMATS, "image": lying})
    noise = np.random.default_rng(0).normal(size=(20, 20, 20))
    with pytest.raises(CaseError, match="E_VERIFY"):
        artifacts.save("x", "image", volumes.volume(noise, AFFINE), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_transform_survives(tmp_path: Path) -> None:
    transform = sitk.Euler3DTransform((3, 4, 5), 0.1, -0.2, 0.3, (7, -8, 9))
    path, artifact = artifacts.save("t", "transform", transform, tmp_path)
    stored = sitk.ReadTransform(str(path))
    np.testing.assert_allclose(stored.TransformPoint((1, 2, 3)), transform.TransformPoint((1, 2, 3)), atol=1e-12)
    assert artifact.sha256 == sha256_file(path)


def bent() -> sitk.CompositeTransform:
    spline = sitk.BSplineTransform(3)
    spline.SetTransformDomainMeshSize([6, 7, 8])
    spline.SetTransformDomainPhysicalDimensions([90, 80, 70])
    numbers = np.random.default_rng(0).normal(0, 2, spline.GetNumberOfParameters())
    spline.SetParameters(numbers.tolist())
    field = sitk.TransformToDisplacementField(spline, sitk.sitkVectorFloat64, (9, 8, 7), (0, 0, 0), (10, 10, 10))
    return sitk.CompositeTransform([sitk.AffineTransform(3), spline, sitk.DisplacementFieldTransform(field)])


@pytest.mark.parametrize("transform", [sitk.Euler3DTransform((3, 4, 5), 0.1, -0.2, 0.3, (7, -8, 9)), bent()])
def test_a_transform_gives_the_same_bytes_whenever_it_is_written(tmp_path: Path, transform: sitk.Transform) -> None:
    first, _ = artifacts.save("t", "transform", transform, tmp_path / "a")
    time.sleep(1.1)  # the time stamps of HDF5 count seconds
    second, _ = artifacts.save("t", "transform", transform, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    stored = sitk.ReadTransform(str(first))
    assert stored.GetParameters() == transform.GetParameters()
    for point in ((12.0, 13.0, 14.0), (44.0, 31.0, 27.0)):
        assert stored.TransformPoint(point) == transform.TransformPoint(point)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["t.h5"]


def test_a_transform_that_was_cut_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(transform: sitk.Transform, path: Path) -> None:
        artifacts._write_transform(transform, path)
        path.write_bytes(path.read_bytes()[:-500])

    form = artifacts.FORMATS["transform"]
    lying = artifacts.Format(form.suffix, form.prepare, cut, form.check)
    monkeypatch.setattr(artifacts, "FORMATS", {**artifacts.FORMATS, "transform": lying})
    with pytest.raises(CaseError, match="E_VERIFY"):
        artifacts.save("t", "transform", bent(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_tables_measures_and_documents(tmp_path: Path) -> None:
    table = pd.DataFrame({"case": ["=cmd()", "ok"], "volume_ml": [1.5, 2.0]})
    path, _ = artifacts.save("t", "table", table, tmp_path)
    assert path.read_text().splitlines() == ["case,volume_ml", "'=cmd(),1.5", "ok,2.0"]
    path, _ = artifacts.save("m", "measure", {"dice": np.float32(0.5), "n": np.int64(3), "none": None}, tmp_path)
    assert json.loads(path.read_text()) == {"dice": 0.5, "n": 3, "none": None}
    path, _ = artifacts.save("d", "document", Document(".pdf", b"%PDF-"), tmp_path)
    assert (path.name, path.read_bytes()) == ("d.pdf", b"%PDF-")
    with pytest.raises(CaseError, match="E_DTYPE"):
        artifacts.save("m", "measure", {"dice": float("nan")}, tmp_path)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="E_CONFIG"):
        artifacts.save("x", "picture", None, tmp_path)


def test_a_transform_on_a_full_disk_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The raw file is full of what found room: the disk is looked at before it is taken away."""

    def cut(_: sitk.Transform, name: str) -> None:
        Path(name).touch()
        raise RuntimeError("ITK ERROR: H5Dwrite failed")

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=0 if any(path.name.endswith("-itk.h5") for path in folder.iterdir()) else 1 << 30)

    monkeypatch.setattr(sitk, "WriteTransform", cut)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(CaseError, match=r"^E_DISK"):
        artifacts.save("t", "transform", bent(), tmp_path)
    assert not list(tmp_path.iterdir())
