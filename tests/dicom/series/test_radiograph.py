"""Radiographs: one image each, upright in value, with a pixel size that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from pipeline import geometry, volumes
from pipeline.cases import Series
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.volume import read
from pipeline.dicom.series.gate import candidates
from pipeline.dicom.series.select import refuse, select
from pipeline.simulation.dicom import write_series
from pipeline.spec.spec import Role, Rule, Spec
from tests.phantoms.phantom import position_phantom


def write(folder: Path, views: tuple[str, ...] = ("PA",), **values: object) -> list[Path]:
    """One radiograph a view: 12 columns, 10 rows, stored values 0 to 4095."""
    paths = write_series(position_phantom(shape=(12, 10, max(2, len(views)))), folder)
    for path in paths[len(views) :]:
        path.unlink()
    for index, (path, view) in enumerate(zip(paths, views, strict=False)):
        image = pydicom.dcmread(path)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
            delattr(image, keyword)
        del image.RescaleIntercept, image.WindowCenter, image.WindowWidth, image.RescaleType
        image.Modality, image.ViewPosition = "DX", view
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
        image.BitsStored, image.HighBit = 12, 11
        image.ImagerPixelSpacing = ["0.14", "0.2"]
        image.PixelData = (stored() + index).astype("<u2").tobytes()
        for keyword, value in values.items():
            setattr(image, keyword, value)
        image.save_as(path, enforce_file_format=True)
    return paths


def stored() -> np.ndarray:
    return np.arange(120).reshape(10, 12) * 30


def radiographs(folder: Path) -> list[Series]:
    return candidates(scan(folder).series)


def test_one_image_with_its_pixel_size(tmp_path: Path) -> None:
    write(tmp_path)
    (series,) = radiographs(tmp_path)
    found = read(series)
    assert series.notes == ("N_DETECTOR_SPACING",)
    assert found.image.shape == (1, 12, 10, 1)
    np.testing.assert_array_equal(found.image.numpy()[0, :, :, 0].T, stored())
    np.testing.assert_allclose(geometry.spacing_mm(volumes.affine_of(found.image)), [0.2, 0.14, 1.0])
    assert found.notes == ()


def test_the_magnification_is_taken_out(tmp_path: Path) -> None:
    write(tmp_path, EstimatedRadiographicMagnificationFactor="1.4")
    (series,) = radiographs(tmp_path)
    assert series.notes == ()
    np.testing.assert_allclose(geometry.spacing_mm(volumes.affine_of(read(series).image)), [0.2 / 1.4, 0.1, 1.0])


def test_a_calibrated_pixel_size_comes_first_and_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", PixelSpacing=["0.1", "0.1"])
    (series,) = radiographs(tmp_path / "a")
    assert geometry.spacing_mm(volumes.affine_of(read(series).image))[0] == pytest.approx(0.1)
    write(tmp_path / "b", ImagerPixelSpacing=None)
    (series,) = radiographs(tmp_path / "b")
    assert series.fault is not None and series.fault.code == "E_NO_GEOMETRY"


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    write(tmp_path, PhotometricInterpretation="MONOCHROME1")
    (series,) = radiographs(tmp_path)
    assert "N_INVERTED" in series.notes
    np.testing.assert_array_equal(read(series).image.numpy()[0, :, :, 0].T, stored().max() - stored())


def test_the_window_of_the_display_is_applied(tmp_path: Path) -> None:
    """A linear window of width 1001 about 1000.5 maps 500.5 … 1500 to 0 … 4095. Source: DICOM PS3.3 C.11.2.1.2.1."""
    write(tmp_path, WindowCenter="1000.5", WindowWidth="1001")
    (series,) = radiographs(tmp_path)
    found = read(series)
    expected = np.clip(((stored() - 1000.0) / 1000 + 0.5) * 4095, 0, 4095)
    np.testing.assert_allclose(found.image.numpy()[0, :, :, 0].T, expected, atol=0.01)
    assert found.notes == ("N_WINDOWED",)


def test_a_lookup_table_of_the_display_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.add_new("LUTData", "OW", (np.arange(4096) * 3 + 7).astype("<u2").tobytes())
    write(tmp_path, VOILUTSequence=[table])
    (series,) = radiographs(tmp_path)
    np.testing.assert_array_equal(read(series).image.numpy()[0, :, :, 0].T, stored() * 3 + 7)


def test_each_image_of_a_series_stands_for_itself(tmp_path: Path) -> None:
    write(tmp_path, views=("PA", "LL"))
    found = radiographs(tmp_path)
    assert [(series.part, series.instances[0].tags["ViewPosition"]) for series in found] == [
        ("image 1 of 2", "PA"),
        ("image 2 of 2", "LL"),
    ]
    role = Role(modality="DX", dimensions=2, all=(Rule(tag="ViewPosition", matches="^LL$"),))
    chosen = select(found, Spec(name="x", description="x", roles={"side": role}), lambda item: "case")
    assert chosen.cases[0].fault is None
    assert chosen.cases[0].series["side"].part == "image 2 of 2"


def test_volumes_and_radiographs_do_not_play_each_others_roles(tmp_path: Path) -> None:
    write(tmp_path / "dx")
    write_series(position_phantom(shape=(8, 8, 4)), tmp_path / "ct")
    (dx,), (ct,) = radiographs(tmp_path / "dx"), radiographs(tmp_path / "ct")
    assert refuse(dx, Role(modality="DX")) == "a radiograph, not a volume"
    assert refuse(ct, Role(modality="CT", dimensions=2)) == "a volume, not a radiograph"
    assert refuse(dx, Role(modality="DX", dimensions=2)) == ""
    with pytest.raises(ValueError, match="single images"):
        Role(modality="DX", dimensions=2, min_instances=3)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "E_BURNED_IN"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "E_SCREENSHOT"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "E_NOT_SCALAR"),
    ],
)
def test_what_is_no_radiograph_is_set_aside(tmp_path: Path, values: dict[str, object], code: str) -> None:
    write(tmp_path, **values)
    (series,) = radiographs(tmp_path)
    assert series.fault is not None and series.fault.code == code
