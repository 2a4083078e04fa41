"""`tandem segment`: files in, labels on their grids out; weights loaded once; what is wrong is said."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline import api
from pipeline.commands import segment as command
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.objects.segments import place, read_segmentation
from pipeline.errors import UsageError
from pipeline.segmentation import model as models
from pipeline.segmentation.model import load_model
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.stage import Segmentd
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.volumes import volume
from tests.phantoms.phantom import position_phantom
from tests.segmentation.conftest import write_model
from tests.tandem_process import call
from tests.tandem_process import command as command_line

AFFINE = np.array([[0, -1.3, 0, 40], [0.9, 0, 0, -8], [0, 0, 1.1, 3], [0, 0, 0, 1.0]])


def picture(seed: int) -> np.ndarray:
    return (50 + 20 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(9, 8, 10)), 1)).astype(
        np.float32
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images, with a patient's name in their names."""
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    (tmp_path / "images").mkdir()
    for number in range(3):
        nib.save(nib.Nifti1Image(picture(number), AFFINE), tmp_path / "images" / f"Doe_{number}.nii.gz")
    return tmp_path / "images"


def test_a_folder_of_images_with_weights_that_are_loaded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, out = [], tmp_path / "out"
    load = models.load_checkpoint
    monkeypatch.setattr(models, "load_checkpoint", lambda path: loaded.append(path) or load(path))
    path = write_model(tmp_path / "model", folds=2)
    found = api.segment([folder], path, out, mirroring=False, dicom_seg=True)
    assert len(found) == 3 and len(loaded) == 2
    expected = Segmentd(Predictor(load_model(path), mirror=False), {"mr": "mr"})
    made = sorted(out.glob("*.nii.gz"))
    digests = {nib.load(item).get_fdata().tobytes() for item in made}
    truth = {
        expected({"mr": volume(picture(number), AFFINE)})["segment_label"].numpy()[0].astype(float).tobytes()
        for number in range(3)
    }
    assert len(made) == 3 and digests == truth
    given = nib.load(folder / "Doe_0.nii.gz").affine
    assert all(np.array_equal(nib.load(item).affine, given) for item in made)
    seg = next(out.glob("cases/*/segment/segment_seg.dcm"))
    (instance,) = read_header(seg).instances
    labels = nib.load(seg.with_name("segment_label.nii.gz"))
    head = place(read_segmentation(instance), [1], labels.shape, labels.affine)
    assert np.array_equal(head, np.asarray(labels.dataobj) == 1)
    before = written(out)
    api.segment([folder], path, out, mirroring=False, dicom_seg=True)
    assert written(out) == before and len(before) == 3


def written(out: Path) -> dict[str, int]:
    """Case -> when the record of a segmentation that is done was written, in ns."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.glob("cases/*/segment/record.json")}


@pytest.mark.slow
def test_a_prediction_that_is_killed_repeats_the_case_in_flight_alone(folder: Path, tmp_path: Path) -> None:
    path, out = write_model(tmp_path / "model"), tmp_path / "out"
    for number in range(3, 12):
        nib.save(nib.Nifti1Image(picture(number), AFFINE), folder / f"Doe_{number}.nii.gz")
    typed = command_line("segment", "-i", folder, "-m", path, "-o", out, "--no-mirroring")
    with subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(written(out)) < 2:
            time.sleep(0.002)
        process.kill()
    before = written(out)
    assert 2 <= len(before) < 12 and process.returncode == -signal.SIGKILL
    found = api.segment([folder], path, out, mirroring=False)
    after = written(out)
    assert len(after) == 12 and {case: after[case] for case in before} == before
    assert all(record.status == "done" for records in found.values() for record in records)
    assert not [path.name for path in out.rglob(".*") if path.is_file() and path.name != ".lock"]


def test_no_path_and_no_name_is_in_the_run_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    api.segment([folder / "Doe_0.nii.gz"], write_model(tmp_path / "model"), out, mirroring=False, probabilities=True)
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix in (".json", ".csv", ".yaml", ".txt")]
    assert files
    for path in files:
        assert "Doe" not in path.read_text() and str(tmp_path) not in path.read_text()
    assert not [path for path in out.rglob("*Doe*")]
    chances = nib.load(next(out.glob("cases/*/segment/segment_probability.nii.gz")))
    assert chances.shape == (9, 8, 10, 3) and np.allclose(chances.get_fdata().sum(-1), 1, atol=1e-5)


def test_channels_are_named_or_numbered(folder: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", channels=("CT", "T1"), about={"channels": ["ct", "mr"]})
    one, other = folder / "Doe_0.nii.gz", folder / "Doe_1.nii.gz"
    named = api.segment([f"mr={other}", f"ct={one}"], path, tmp_path / "named", mirroring=False, keep_names=True)
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    one.rename(numbered / "a_0000.nii.gz")
    other.rename(numbered / "a_0001.nii.gz")
    found = api.segment([numbered], path, tmp_path / "out", mirroring=False, keep_names=True)
    assert list(named) == ["Doe_0"] and list(found) == ["a"]
    files = tmp_path / "named" / "Doe_0.nii.gz", tmp_path / "out" / "a.nii.gz"
    assert np.array_equal(*(nib.load(item).get_fdata() for item in files))


@pytest.mark.parametrize("given", [["ct=A"], ["ct=A", "pet=B"], ["A", "B"], ["ct=A", "B"]])
def test_other_channels_are_refused_with_both_lists(folder: Path, tmp_path: Path, given: list[str]) -> None:
    path = write_model(tmp_path / "model", channels=("CT", "T1"), about={"channels": ["ct", "mr"]})
    inputs = [
        item.replace("A", str(folder / "Doe_0.nii.gz")).replace("B", str(folder / "Doe_x.nii.gz")) for item in given
    ]
    with pytest.raises(UsageError, match=r"E_CHANNELS.*channels ct, mr, got") as error:
        api.segment(inputs, path, tmp_path / "out")
    assert any("=" in item for item in given) or "Doe_x.nii.gz, which does not say" in str(error.value)


def test_a_bad_image_fails_alone(folder: Path, tmp_path: Path) -> None:
    broken = folder / "Doe_1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-200])
    values = picture(2)
    values[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(values, AFFINE), folder / "Doe_2.nii.gz")
    path, out = write_model(tmp_path / "model"), tmp_path / "out"
    done = call("segment", "-i", folder, "-m", path, "-o", out, "--no-mirroring", "--keep-names", "-q")
    assert done.code == 1
    found = {name: records[-1] for name, records in api.status(out).items()}
    assert found["Doe_0"].status == "done"
    assert {found[name].error.code for name in ("Doe_1", "Doe_2")} == {"E_NIFTI"}  # type: ignore[union-attr]
    assert [item.name for item in out.glob("*.nii.gz")] == ["Doe_0.nii.gz"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("-i", "no.nii.gz"), "E_INPUT"),
        (("--folds", "7"), "E_FOLD"),
        (("--engine", "other"), "E_CONFIG"),
        (("--step", "0"), "E_CONFIG"),
        (("-m", "nowhere"), "E_WEIGHTS"),
    ],
)
def test_what_cannot_start_is_said(folder: Path, tmp_path: Path, options: tuple[str, str], code: str) -> None:
    given = {"-i": str(folder / "Doe_0.nii.gz"), "-m": str(write_model(tmp_path / "model")), options[0]: options[1]}
    done = call("segment", *(word for pair in given.items() for word in pair), "-o", tmp_path / "out")
    assert done.code == 2 and code in done.err


def test_two_files_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    paths = [folder / "Doe_0.nii.gz"] * 2
    with pytest.raises(UsageError, match="E_NAMES"):
        command.segment(paths, write_model(tmp_path / "model"), tmp_path / "out")


def test_a_folder_of_dicom_gives_a_dicom_seg_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    write_series(position_phantom((12, 10, 9)), tmp_path / "dicom", SeriesHeader(patient_id="DOE-JANE"))
    out = tmp_path / "out"
    found = api.segment([tmp_path / "dicom"], write_model(tmp_path / "model"), out, mirroring=False)
    (record,) = next(iter(found.values()))
    assert record.status == "done" and {"segment_label", "segment_seg"} <= {item.key for item in record.artifacts}
    image = next((out / "input_0_mr").glob("cases/*/ingest/image.nii.gz"))
    labels = nib.load(next(out.glob("*.nii.gz")))
    assert labels.shape == nib.load(image).shape and np.allclose(labels.affine, nib.load(image).affine)
    for path in out.rglob("*"):
        assert "DOE" not in path.name and (not path.is_file() or b"DOE-JANE" not in path.read_bytes())
