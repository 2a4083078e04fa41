from __future__ import annotations

import time
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import RTDoseStorage

from pipeline.cases import Instance
from pipeline.dicom.headers.header import read_header
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.enhanced import Layout, write_enhanced
from tests.phantoms.phantom import position_phantom

SHAPE = (12, 10, 6)


def position_error(instances: tuple[Instance, ...], stored: npt.NDArray[np.generic], above: float = 0) -> float:
    """How far the frames' values are from x + 2y + 4z (LPS mm) + `above` at the places that the instances claim."""
    worst = 0.0
    for instance in instances:
        axes, position = np.asarray(instance.orientation).reshape(2, 3), np.asarray(instance.position)
        between_rows, between_columns = instance.spacing_mm or (0.0, 0.0)
        i, j = np.meshgrid(np.arange(instance.columns), np.arange(instance.rows))
        places = position + i[..., None] * axes[0] * between_columns + j[..., None] * axes[1] * between_rows
        values = stored[instance.frame] * float(instance.slope or 1) + float(instance.intercept or 0)
        worst = max(worst, float(np.abs(values - places @ [1.0, 2.0, 4.0] - above).max()))
    return worst


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("layout", [Layout(), Layout(shuffled=True, own_rescale=True)])
def test_every_frame_has_its_own_place_and_rescale(tmp_path: Path, modality: str, layout: Layout) -> None:
    above = 0 if modality == "CT" else 1000
    image = position_phantom(shape=SHAPE) + above
    path = write_enhanced([image], tmp_path / "x.dcm", SeriesHeader(modality=modality), layout)
    instances = read_header(path).instances
    assert [instance.frame for instance in instances] == list(range(6))
    assert {instance.tags["NumberOfFrames"] for instance in instances} == {"1"}
    assert {instance.pixels.frames for instance in instances if instance.pixels} == {6}
    assert len({instance.position for instance in instances}) == 6
    assert position_error(instances, pydicom.dcmread(path).pixel_array, above) <= 0.51


@pytest.mark.parametrize(
    ("apart", "tag"), [("time", "TemporalPositionIndex"), ("echo", "EchoTime"), ("stack", "StackID")]
)
def test_what_tells_the_volumes_apart_is_in_the_tags(tmp_path: Path, apart: str, tag: str) -> None:
    images = [position_phantom(shape=SHAPE) + 2000, position_phantom(shape=SHAPE) + 2100]
    path = write_enhanced(images, tmp_path / "x.dcm", SeriesHeader(modality="MR"), Layout(shuffled=True, apart=apart))
    instances = read_header(path).instances
    stored = pydicom.dcmread(path).pixel_array
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.tags[tag], []).append(instance)
    assert len(groups) == 2
    brighter = [np.mean([stored[i.frame] * (i.slope or 1) + (i.intercept or 0) for i in g]) for g in groups.values()]
    assert abs(np.diff(brighter)[0]) == pytest.approx(100, abs=1)
    for group in groups.values():
        assert len({instance.position for instance in group}) == 6


def test_frame_values_against_pydicom(tmp_path: Path) -> None:
    """All that a frame's groups say replaces what the file says for all."""
    path = write_enhanced([position_phantom(shape=SHAPE)], tmp_path / "x.dcm", SeriesHeader())
    file = pydicom.dcmread(path)
    for number, item in enumerate(file.PerFrameFunctionalGroupsSequence):
        kind, kernel, content = Dataset(), Dataset(), item.FrameContentSequence[0]
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", f"N{number}"]
        kernel.ConvolutionKernel = f"K{number}"
        content.FrameAcquisitionDateTime = f"2024011510150{number}.5"
        content.FrameAcquisitionNumber = number + 7
        item.CTImageFrameTypeSequence = Sequence([kind])
        item.CTReconstructionSequence = Sequence([kernel])
    file.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "MIXED"]
    file.save_as(path, enforce_file_format=True)
    for number, instance in enumerate(read_header(path).instances):
        assert instance.tags["ImageType"] == f"ORIGINAL\\PRIMARY\\VOLUME\\N{number}"
        assert instance.tags["ConvolutionKernel"] == f"K{number}"
        assert instance.tags["AcquisitionDateTime"] == f"2024011510150{number}.5"
        assert instance.tags["AcquisitionNumber"] == str(number + 7)
        assert instance.tags["SeriesDescription"] == file.SeriesDescription
        truth = file.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        assert instance.position == tuple(float(value) for value in truth)


def test_a_real_world_mapping_stands_in_for_a_missing_rescale(tmp_path: Path) -> None:
    path = write_enhanced([position_phantom(shape=SHAPE)], tmp_path / "x.dcm", SeriesHeader())
    file = pydicom.dcmread(path)
    for groups in (file.SharedFunctionalGroupsSequence[0], *file.PerFrameFunctionalGroupsSequence):
        groups.pop("PixelValueTransformationSequence", None)
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 2.5, -12.0
    file.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = Sequence([mapping])
    file.save_as(path, enforce_file_format=True)
    assert {(instance.slope, instance.intercept) for instance in read_header(path).instances} == {(2.5, -12.0)}
    file.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = Sequence([mapping, mapping])
    file.save_as(path, enforce_file_format=True)
    assert {(instance.slope, instance.intercept) for instance in read_header(path).instances} == {(None, None)}


def test_fewer_places_than_frames_are_refused(tmp_path: Path) -> None:
    path = write_enhanced([position_phantom(shape=SHAPE)], tmp_path / "x.dcm", SeriesHeader())
    file = pydicom.dcmread(path)
    file.PerFrameFunctionalGroupsSequence = file.PerFrameFunctionalGroupsSequence[:5]
    file.save_as(path, enforce_file_format=True)
    (instance,) = read_header(path).instances
    assert instance.fault is not None and instance.fault.code == "E_MULTIFRAME"
    assert instance.fault.message == "Expected the places of 6 frames, got 5."


def test_a_wrong_number_is_the_fault_of_its_frame(tmp_path: Path) -> None:
    path = write_enhanced([position_phantom(shape=SHAPE)], tmp_path / "x.dcm", SeriesHeader())
    data = path.read_bytes()
    truth = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient
    text = "\\".join(str(value) for value in truth).encode()
    assert data.count(text) == 1
    path.write_bytes(data.replace(text, text.replace(b".", b",", 1)))
    codes_ = [instance.fault.code if instance.fault else "" for instance in read_header(path).instances]
    assert codes_ == ["", "", "E_BAD_DS", "", "", ""]


def test_a_parametric_map_of_highdicom(tmp_path: Path) -> None:
    """Float pixels, frames and geometry written by another library."""
    sources = [pydicom.dcmread(p) for p in write_series(position_phantom(shape=SHAPE), tmp_path / "s", SeriesHeader())]
    values = np.stack([source.pixel_array * 1.0 - 1024 for source in sources]).astype(np.float32)
    mapping = hd.pm.RealWorldValueMapping("x", "x", codes.UCUM.HounsfieldUnit, (-2e3, 2e3), intercept=0.0, slope=1.0)
    image = hd.pm.ParametricMap(
        sources, values, hd.UID(), 9, hd.UID(), 1, "M", "M", "1", "1", False, [mapping], window_center=0, window_width=9
    )
    image.save_as(tmp_path / "pm.dcm")
    instances = read_header(tmp_path / "pm.dcm").instances
    assert len(instances) == 6
    pixels = instances[0].pixels
    assert pixels is not None and pixels.floating and pixels.bits_allocated == 32
    raw = np.frombuffer((tmp_path / "pm.dcm").read_bytes(), "<f4", values.size, pixels.offset).reshape(values.shape)
    assert position_error(instances, raw) <= 0.51


def test_a_segmentation_stays_one_instance(tmp_path: Path) -> None:
    sources = [pydicom.dcmread(p) for p in write_series(position_phantom(shape=SHAPE), tmp_path / "s", SeriesHeader())]
    mask = np.zeros((6, 10, 12), np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    described = hd.seg.SegmentDescription(
        *(1, "x", codes.cid7150.Tissue, codes.cid7166.ConnectiveTissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
    )
    segmentation = hd.seg.Segmentation(
        *(
            sources,
            mask,
            hd.seg.SegmentationTypeValues.BINARY,
            [described],
            hd.UID(),
            9,
            hd.UID(),
            1,
            "M",
            "M",
            "1",
            "1",
        )
    )
    segmentation.save_as(tmp_path / "seg.dcm")
    (instance,) = read_header(tmp_path / "seg.dcm").instances
    assert instance.fault is None and instance.tags["Modality"] == "SEG"
    assert instance.tags["NumberOfFrames"] == str(segmentation.NumberOfFrames)


def stacked(folder: Path, **values: object) -> Dataset:
    """All slices of a position phantom in one file, without functional groups."""
    slices = [pydicom.dcmread(path) for path in write_series(position_phantom(shape=SHAPE), folder, SeriesHeader())]
    file = slices[0]
    file.NumberOfFrames = len(slices)
    file.PixelData = b"".join(slice_.PixelData for slice_ in slices)
    for keyword, value in values.items():
        setattr(file, keyword, value)
    return file


def test_a_dose_grid(tmp_path: Path) -> None:
    """The position phantom as dose: slope 0.5 on doubled values, so that the scaling shows."""
    file = stacked(tmp_path / "s", Modality="RTDOSE", SOPClassUID=RTDoseStorage, DoseGridScaling="0.5")
    file.GridFrameOffsetVector = [2.5 * k for k in range(6)]
    stored = (file.pixel_array.astype(int) - 1024 + 900) * 2
    file.PixelData = stored.astype("<u2").tobytes()
    file.BitsStored, file.HighBit = 16, 15
    del file.RescaleSlope, file.RescaleIntercept
    file.save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    instances = read_header(tmp_path / "dose.dcm").instances
    assert {(instance.slope, instance.intercept) for instance in instances} == {(0.5, 0.0)}
    assert position_error(instances, stored - 1800) <= 0.51


def test_absolute_offsets_of_a_dose_grid_that_is_oblique_are_not_certain(tmp_path: Path) -> None:
    file = stacked(tmp_path / "s", Modality="RTDOSE", SOPClassUID=RTDoseStorage, DoseGridScaling="0.5")
    file.GridFrameOffsetVector = [float(file.ImagePositionPatient[2]) + 2.5 * k for k in range(6)]
    file.save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    (instance,) = read_header(tmp_path / "dose.dcm").instances
    assert instance.tags["NumberOfFrames"] == "6"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_reconstruction_of_nuclear_medicine(tmp_path: Path, sign: int) -> None:
    file = stacked(tmp_path / "s", Modality="NM", SOPClassUID="1.2.840.10008.5.1.4.1.1.20")
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = (
        file.ImagePositionPatient,
        file.ImageOrientationPatient,
    )
    stored = file.pixel_array.astype(float)
    if sign < 0:  # from the last slice back to the first
        last = read_header(sorted((tmp_path / "s").iterdir(), key=lambda p: pydicom.dcmread(p).InstanceNumber)[-1])
        detector.ImagePositionPatient = list(last.instances[0].position or ())
        stored = stored[::-1]
        file.PixelData = stored.astype("<u2").tobytes()
    del file.ImagePositionPatient, file.ImageOrientationPatient
    file.DetectorInformationSequence = Sequence([detector])
    file.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    file.FrameIncrementPointer, file.SliceVector, file.NumberOfSlices = 0x00540080, list(range(1, 7)), 6
    file.SpacingBetweenSlices = str(sign * 2.5)
    file.save_as(tmp_path / "nm.dcm", enforce_file_format=True)
    instances = read_header(tmp_path / "nm.dcm").instances
    assert len(instances) == 6
    assert position_error(instances, stored) <= 0.51
    file.SliceVector = [1, 2, 3, 4, 6, 5]
    file.save_as(tmp_path / "nm.dcm", enforce_file_format=True)
    assert len(read_header(tmp_path / "nm.dcm").instances) == 1


def test_frames_without_any_place_stay_one_image(tmp_path: Path) -> None:
    """The gate refuses it: E_MULTIFRAME."""
    stacked(tmp_path / "s", Modality="US").save_as(tmp_path / "us.dcm", enforce_file_format=True)
    (instance,) = read_header(tmp_path / "us.dcm").instances
    assert instance.tags["NumberOfFrames"] == "6" and instance.fault is None


def test_a_thousand_frames_are_fast(tmp_path: Path) -> None:
    path = write_enhanced([position_phantom(shape=(4, 4, 1000))], tmp_path / "x.dcm", SeriesHeader(modality="CT"))
    started = time.process_time()
    assert len(read_header(path).instances) == 1000
    assert time.process_time() - started < 3
