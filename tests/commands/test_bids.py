"""`tandem cohort --bids`: a dataset of BIDS, whose own validator is asked."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.cases import Artifact, Fault, Geometry, Record, Verdict
from pipeline.commands.bids import export_bids
from pipeline.errors import UsageError
from pipeline.store import records
from pipeline.store.artifacts import save
from pipeline.store.files import run_lock
from pipeline.store.sections import SECTIONS, Display, Regions, Sections
from pipeline.volumes import volume
from tests.tandem_process import call
from tests.whole_run import WholeRun

SPEC = """\
name: heads
description: CT, MR and PET.
roles:
  ct: {modality: CT, unit: HU}
  mr: {modality: MR}
  pet: {modality: PT, unit: SUVbw}
register: {fixed: ct, moving: [mr]}
"""
KIND = {"mr": "T1w"}
#: On which the CT lies; the others' own differ in spacing.
CT_MM, OTHERS_MM = 2.0, 3.0


def image(value: float, spacing_mm: float, kind: str = "float32"):
    array = np.full((1, 5, 6, 7), value, kind)
    array[0, 2, 3, 4] += 1
    return volume(array, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]))


def stage(out: Path, record: Record, images: dict[str, tuple[str, object]], said: Sections | None = None) -> Record:
    """Write a stage's outputs and record."""
    folder = out / "cases" / record.case_id / record.stage
    folder.mkdir(parents=True)
    kept = {key: save(key, kind, value, folder)[1] for key, (kind, value) in images.items()}
    if said is not None:
        kept[SECTIONS] = save(SECTIONS, "measure", said.as_json(), folder)[1]
    made = [replace(item, path=f"cases/{record.case_id}/{record.stage}/{item.path}") for item in kept.values()]
    record = replace(record, artifacts=tuple(made))
    records.write(record, folder)
    return record


def case(out: Path, case_id: str, aligned: Verdict | None = None) -> None:
    """Ingest and registration of a case, whose alignment gets a verdict."""
    names = Sections(
        displays=(Display("ct", "CT of the head", "HU"),), regions=(Regions("lesion", ("ct",), {2: "oedema"}),)
    )
    first = stage(
        out,
        Record(case_id, "ingest", "k", "done", measures={"seconds": 1.5}),
        {
            "ct": ("image", image(40, CT_MM)),
            "mr": ("image", image(7, OTHERS_MM)),
            "pet": ("image", image(1, 4.0)),
            "lesion": ("label", image(1, CT_MM, "uint8")),
        },
        names,
    )
    read = tuple(Artifact(i.key, i.kind, i.path, i.sha256) for i in first.artifacts)
    second = stage(
        out,
        Record(case_id, "register", "k", "done", inputs=read, verdict=aligned),
        {"mr_aligned": ("image", image(8, CT_MM))},
    )
    prepared = tuple(Artifact(i.key, i.kind, i.path, i.sha256) for i in second.artifacts)
    stage(
        out, Record(case_id, "preprocess", "k", "done", inputs=prepared), {"mr_normalised": ("image", image(9, CT_MM))}
    )
    stage(
        out,
        Record(case_id, "radiomics", "k", "done", inputs=read),
        {
            "lesion_on_mr": ("label", image(1, OTHERS_MM, "uint8")),
            "attention": ("probability", image(0, CT_MM)),
            "lesion_probability": ("probability", image(0, CT_MM)),
        },
        Sections(regions=(Regions("lesion_on_mr", ("mr",), {1: "core", 2: "measured"}),)),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    case(folder, "case-1", Verdict("pass", ()))
    case(folder, "case-2", Verdict("fail", ("Moved by 9 mm.",)))
    gap = Fault("E_GAP", "1 of 9 slices is missing.", "Export it.")
    records.write(Record("case-3", "ingest", "k", "quarantined", error=gap), folder / "cases" / "case-3" / "ingest")
    (folder / "spec.yaml").write_text(SPEC)
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def faults(folder: Path) -> list[str]:
    """What the validator of BIDS, which is not ours, says is wrong."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")
    said = subprocess.run([program, "--format", "json", folder], capture_output=True, text=True, check=False)
    issues = json.loads(said.stdout)["issues"]["issues"]
    return [
        f"{item['code']} {item.get('subCode', '')} {item['location']}" for item in issues if item["severity"] == "error"
    ]


def test_each_output_is_named_as_bids_asks(out: Path, tmp_path: Path) -> None:
    made = export_bids(out, tmp_path / "bids", KIND)
    assert {name for name in files(made.folder) if name.startswith("sub-1/") and name.endswith("gz")} == {
        "sub-1/ct/sub-1_desc-ct_ct.nii.gz",
        "sub-1/anat/sub-1_desc-mr_T1w.nii.gz",
        "sub-1/anat/sub-1_space-ct_desc-mrAligned_T1w.nii.gz",
        "sub-1/anat/sub-1_space-ct_desc-mrNormalised_T1w.nii.gz",
        "sub-1/anat/sub-1_space-ct_desc-lesion_dseg.nii.gz",
        "sub-1/pet/sub-1_desc-pet_pet.nii.gz",
        "sub-1/anat/sub-1_space-mr_desc-lesionOnMr_dseg.nii.gz",
        "sub-1/anat/sub-1_space-ct_desc-lesionProbability_probseg.nii.gz",
        "sub-1/other/sub-1_space-ct_desc-attention_image.nii.gz",  # from 0 to 1, but no segmentation
    }
    moved = nib.load(made.folder / "sub-1/anat/sub-1_space-ct_desc-mrAligned_T1w.nii.gz")
    assert np.asarray(moved.dataobj)[2, 3, 4] == 9
    assert moved.header.get_zooms() == (CT_MM,) * 3


def test_what_stands_beside_says_what_it_is(out: Path, tmp_path: Path) -> None:
    folder = export_bids(out, tmp_path / "bids", KIND).folder
    aligned = json.loads((folder / "sub-1/anat/sub-1_space-ct_desc-mrAligned_T1w.json").read_text())
    assert aligned["SpatialReference"] == "bids::sub-1/ct/sub-1_desc-ct_ct.nii.gz"
    assert (folder / aligned["SpatialReference"].removeprefix("bids::")).is_file()
    ct = json.loads((folder / "sub-1/ct/sub-1_desc-ct_ct.json").read_text())
    assert (ct["Description"], ct["Units"]) == ("CT of the head", "HU")
    labels = pd.read_csv(folder / "sub-1/anat/sub-1_space-ct_desc-lesion_dseg.tsv", sep="\t")
    assert labels.to_dict("list") == {"index": [0, 2], "name": ["background", "oedema"]}
    moved = pd.read_csv(folder / "sub-1/anat/sub-1_space-mr_desc-lesionOnMr_dseg.tsv", sep="\t")
    assert moved.to_dict("list") == {"index": [0, 1, 2], "name": ["background", "core", "oedema"]}
    rows = pd.read_csv(folder / "participants.tsv", sep="\t").set_index("participant_id")
    assert rows.loc["sub-1", "ingest_seconds"] == 1.5
    assert rows.loc["sub-2", "verdict_reason"] == "Moved by 9 mm."
    meanings = json.loads((folder / "participants.json").read_text())
    assert meanings["ingest_seconds"] == {"Description": "How long the stage took.", "Units": "s"}


def test_what_a_failed_verdict_speaks_against_is_kept_out_with_all_that_follows_from_it(
    out: Path, tmp_path: Path
) -> None:
    made = export_bids(out, tmp_path / "bids", KIND)
    second = {name for name in files(made.folder) if name.startswith("sub-2/") and name.endswith("gz")}
    assert not any("Aligned" in name or "Normalised" in name for name in second)
    assert (len(second), made.withheld) == (7, 2)
    assert {case: fault.code for case, fault in made.left_out.items()} == {"case-3": "E_GAP"}


def test_bids_own_validator_finds_nothing_wrong(out: Path, tmp_path: Path) -> None:
    folder = export_bids(out, tmp_path / "bids", KIND).folder
    assert faults(folder) == []
    (folder / "sub-1/anat/sub-1_space-ct_desc-mrAligned_T1w.json").unlink()
    assert any("SPATIAL" in item.upper() or "SIDECAR" in item.upper() for item in faults(folder))  # it looks


@pytest.mark.slow
def test_a_whole_run_is_a_valid_dataset_without_the_hospitals_words(whole_run: WholeRun, tmp_path: Path) -> None:
    made = export_bids(whole_run.out, tmp_path / "bids", KIND)
    assert len(made.subjects) == len(whole_run.found) - 1  # one head misses a slice
    assert faults(made.folder) == []
    subject = made.folder / made.subjects[whole_run.small_case]
    ways = {path.name.removeprefix(subject.name) for path in subject.glob("*/*_xfm.h5")}
    assert ways == {"_from-mr_to-ct_mode-image_xfm.h5", "_from-ct_to-mr_mode-image_xfm.h5"}
    (aligned,) = subject.glob("anat/*_space-ct_desc-mrAligned_T1w.nii.gz")
    told = json.loads(aligned.with_name(f"{aligned.name[:-7]}.json").read_text())
    reference = nib.load(made.folder / told["SpatialReference"].removeprefix("bids::"))
    assert np.allclose(nib.load(aligned).affine, reference.affine) and nib.load(aligned).shape == reference.shape
    assert {name.rpartition("_")[2] for name in told["Sources"]} == {"ct.nii.gz", "T1w.nii.gz"}
    assert subject.with_suffix(".pdf").is_file()


@pytest.mark.parametrize("name", ["mr.nii.gz", "sections.json"])
@pytest.mark.parametrize("data", [b"other", None])
def test_an_output_that_was_changed_costs_its_case_alone(
    out: Path, tmp_path: Path, name: str, data: bytes | None
) -> None:
    path = out / "cases" / "case-1" / "ingest" / name
    path.unlink() if data is None else path.write_bytes(data)
    made = export_bids(out, tmp_path / "bids", KIND)
    assert made.left_out["case-1"].code == "E_CHANGED" and name in made.left_out["case-1"].message
    assert list(made.subjects) == ["case-2"]
    assert not any("sub-1" in name for name in files(made.folder))


@pytest.mark.parametrize(
    ("suffixes", "said"),
    [
        ({}, "what kind of MR mr is"),
        ({"mr": "t1w"}, "did you mean T1w?"),
        ({"mr": ""}, "got none"),
        ({"mr": "dwi"}, "got dwi"),  # which needs gradients
        ({"mr": "T1w", "ct": "T1w"}, "a role of MR (mr) in --bids-suffix, got ct"),
    ],
)
def test_a_wrong_suffix_writes_nothing(out: Path, tmp_path: Path, suffixes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match="E_OPTION") as caught:
        export_bids(out, tmp_path / "bids", suffixes)
    assert said in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_grids_are_compared_as_files_hold_them_and_what_was_moved_says_where_it_lies(out: Path, tmp_path: Path) -> None:
    """A header holds single precision; and the moved image may have had the fixed one's grid before."""
    record = records.read(out / "cases" / "case-1" / "ingest")
    grid = record.artifacts[0].geometry
    rounded = Geometry(grid.shape, tuple(tuple(number + 1e-6 for number in row) for row in grid.affine))
    kept = tuple(
        replace(item, geometry={"ct": rounded, "mr": grid}.get(item.key, item.geometry)) for item in record.artifacts
    )
    records.write(replace(record, artifacts=kept), out / "cases" / "case-1" / "ingest")
    names = {Path(name).name for name in files(export_bids(out, tmp_path / "bids", KIND).folder)}
    assert {"sub-1_desc-mr_T1w.nii.gz", "sub-1_space-ct_desc-mrAligned_T1w.nii.gz"} <= names


def test_a_record_that_cannot_be_read_costs_its_case(out: Path, tmp_path: Path) -> None:
    path = out / "cases" / "case-1" / "register" / "record.json"
    path.write_bytes(path.read_bytes()[:100])
    made = export_bids(out, tmp_path / "bids", KIND)
    assert "register/record.json" in made.left_out["case-1"].message and list(made.subjects) == ["case-2"]


def test_a_place_that_nothing_can_take_is_refused_at_the_start(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert export_bids(out, tmp_path / "link", KIND).folder == tmp_path / "there"
    (tmp_path / "mounted").mkdir()

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(target))

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(UsageError, match=r"E_OUT.*Device or resource busy"):
        export_bids(out, tmp_path / "mounted", KIND)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "there", "link", "mounted"}


def test_nothing_is_written_over_nor_into_the_run(out: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for folder in (tmp_path / "full", out / "bids"):
        with pytest.raises(UsageError, match="E_OUT"):
            export_bids(out, folder, KIND)
    case(out, "case--1")
    with pytest.raises(UsageError, match="E_CASE_ID"):
        export_bids(out, tmp_path / "bids", KIND)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "full"}
    with run_lock(out), pytest.raises(UsageError, match="E_BUSY"):
        export_bids(out, tmp_path / "bids", KIND)


def test_the_command_says_what_was_written_and_what_not(out: Path, tmp_path: Path) -> None:
    run = call("cohort", out, "--bids", tmp_path / "bids", "--bids-suffix", "mr=T1w")
    assert run.code == 1
    assert "Not in the dataset: case-3: E_GAP: 1 of 9 slices is missing." in run.err
    assert "BIDS: 2 subjects; 1 case left out; 2 outputs with a failed verdict kept out" in run.out
    assert "case-3: E_GAP: 1 of 9 slices" in (tmp_path / "bids" / "README.md").read_text()
    table = (out / "cases.csv").stat().st_mtime_ns
    assert call("cohort", out, "--bids-suffix", "mr=T1w").code == 2
    twice = ("--bids-suffix", "mr=T1w", "--bids-suffix", "mr=T2w")
    assert "each role once" in call("cohort", out, "--bids", tmp_path / "b", *twice).err
    assert (out / "cases.csv").stat().st_mtime_ns == table  # what is asked for wrongly changes nothing
    assert "such as mr=T1w, got mr" in call("cohort", out, "--bids", tmp_path / "b", "--bids-suffix", "mr").err
