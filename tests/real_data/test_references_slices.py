"""Real stacks for which nobody ships a volume: each layer of what is read is one of the files' slices, in its place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest

from pipeline.dicom.pixels.volume import read
from tests.real_data.catalogue import SLICES, Source
from tests.real_data.references import difference, parts_of, references_of
from tests.real_data.slices import images_below, slices_of, worst_error

#: The largest difference that the rounding of positions in headers explains (HU; the CTs have edges of bone and air).
LARGEST_ERROR_HU = 0.05
#: dcm2niix stores the sheared CT in whole HU.
ROUNDED_HU = 0.5


@pytest.mark.parametrize("source", SLICES, ids=lambda source: source.path)
def test_every_layer_is_a_slice_in_its_place(real_images: Path, source: Source) -> None:
    parts = parts_of(real_images / source.path)
    read_parts = [part for part in parts if part.volume is not None]
    assert len(read_parts) == source.volumes
    assert sorted(part.code for part in parts if part.volume is None) == list(source.codes)
    for part in read_parts:
        instances = part.series.instances
        frames = {path: slices_of(path) for path in part.series.files}
        slices = [frames[instance.path][instance.frame] for instance in instances]
        assert part.volume and worst_error(part.volume, slices) <= LARGEST_ERROR_HU


@pytest.mark.parametrize("syntax", ["", "_implicit"])
def test_each_diffusion_volume_has_one_direction(real_images: Path, syntax: str) -> None:
    """32 frames in one file, position by position: b 0, then the same three directions everywhere."""
    folder = real_images / "dicom2nifti_tests" / "tests" / "data" / "philips_enhanced" / "dti" / f"001{syntax}"
    (path,) = folder.iterdir()
    directions = []
    for group in pydicom.dcmread(path, stop_before_pixels=True).PerFrameFunctionalGroupsSequence:
        gradient = group.MRDiffusionSequence[0].get("DiffusionGradientDirectionSequence")
        directions.append(tuple(gradient[0].DiffusionGradientOrientation) if gradient else ())
    found = [{directions[item.frame] for item in part.series.instances} for part in parts_of(folder)]
    assert [len(each) for each in found] == [1] * 4
    assert set.union(*found) == set(directions) and len(set(directions)) == 4


def test_the_archive_has_changed_private_elements_alone(real_images: Path) -> None:
    """The same images from the scanner, and from an archive that moves private elements onto others."""
    moved, sent = (parts_of(real_images / "dcm_qa_agfa" / name) for name in ("Agfa", "Siemens"))
    for one, other in zip(moved, sent, strict=True):
        assert one.volume is not None and other.volume is not None
        assert one.series.part == other.series.part and difference(one.volume, other.volume) == ""


def test_the_tilt_is_the_one_that_the_header_names(real_images: Path) -> None:
    """GantryDetectorTilt (0018,1120) of the Philips CT is -18.5 degrees; the gate finds it from positions alone."""
    (part,) = parts_of(real_images / "dcm_qa_ct" / "In")
    assert "N_TILT_CORRECTED" in part.series.notes
    assert abs(read(part.series).measures["tilt_deg"]) == pytest.approx(18.5, abs=0.01)


def test_dcm2niix_shears_the_tilted_ct_to_the_same_slices(real_images: Path, tmp_path: Path) -> None:
    """The oracle is not our own invention: the tilt correction of another reader passes it too."""
    converter = shutil.which("dcm2niix")
    if converter is None:
        pytest.skip("dcm2niix is not installed (the extra `bench`)")
    folder = real_images / "dcm_qa_ct" / "In"
    subprocess.run([converter, "-z", "n", "-o", tmp_path, "-f", "tilted", folder], check=True, capture_output=True)
    (theirs,) = references_of(tmp_path / "tilted_Tilt_1.nii")
    assert worst_error(theirs, slices_of(*images_below(folder)[::3])) <= ROUNDED_HU + LARGEST_ERROR_HU
