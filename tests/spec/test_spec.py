from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.shipped import shipped
from pipeline.spec.spec import Limits, Spec, keep_spec, kinds, load_spec, of_run, save_spec
from pipeline.store.sections import Display

GOOD = """\
name: head
description: CT and MR of the head.
roles:
  ct:
    modality: CT
    min_instances: 10
    any:
      - {tag: SeriesDescription, matches: "(?i)head"}
  mr:
    modality: [MR]
    required: false
register:
  fixed: ct
  moving: [mr]
"""


def load(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return load_spec(path)


def test_a_spec_is_read(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    assert spec.roles["ct"].modality == ("CT",)
    assert spec.registration.roles == ["ct", "mr"]
    assert spec.modalities == {"ct": "CT", "mr": "MR"}
    assert kinds(spec.roles, "image", spec.needed) == {"ct": "image", "mr": "image?"}
    assert spec.displays["ct"] == Display("ct", "CT", spec.roles["ct"].unit, (-160.0, 240.0))
    assert spec.of_modality("MR") == ["mr"]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "min_instances: 10",
            "min_instance: 10",
            6,
            "roles.ct.min_instance: unknown key; did you mean `min_instances`?",
        ),
        ("fixed: ct", "fixd: ct", 13, "register.fixd: unknown key; did you mean `fixed`?"),
        ("matches:", "match:", 8, "did you mean `matches`?"),
        ("description:", "descripton:", 2, "did you mean `description`?"),
        ("name: head\n", "", 1, "name: this key is missing"),
        ("min_instances: 10", "min_instances: ten", 6, "roles.ct.min_instances: must be a valid integer"),
        ("(?i)head", "(?i", 8, "not a regular expression"),
        ("moving: [mr]", "moving: [pet]", 14, "`register` names the role `pet`, which `roles` does not define."),
        ("moving: [mr]", "moving: [ct]", 13, "as fixed and as moving"),
        ("  ct:", "  CT scan:", 4, "cannot name a role"),
        ("modality: CT", "modality: KT", 5, "`KT` is no value of Modality (0008,0060)"),
        ("modality: CT", "modality: [CT, PET]", 5, "`PET` is no value of Modality (0008,0060); did you mean `PT`?"),
        ("min_instances: 10", "orientation: axiall", 6, "or 'any', got axiall; did you mean `axial`? Correct"),
        ("fixed: ct", "fixed: ct\n  fixed_mask: skin", 14, "names the mask `skin`"),
        ("moving: [mr]", "moving: {mr: {via: pet}}", 14, "`via` of `mr` leads to `pet`, which is no moving role."),
        ("modality: CT", "modality: ct", 5, "did you mean `CT`?"),
        ("modality: CT", "modality: [CT", 6, "not valid YAML"),
        (
            "SeriesDescription",
            "SerieDescription",
            8,
            "roles.ct.any.0.tag: `SerieDescription` is no DICOM keyword; did you mean `SeriesDescription`?",
        ),
        ("SeriesDescription", "'0008103E'", 8, "`0008103E` is no DICOM keyword"),
        ("required: false", "required: 'false'", 11, "roles.mr.required: must be a valid boolean"),
        ("required: false", "required: 0", 11, "roles.mr.required: must be a valid boolean"),
        ("min_instances: 10", "min_instances: '3'", 6, "roles.ct.min_instances: must be a valid integer"),
        ("min_instances: 10", "dimensions: '3'", 6, "roles.ct.dimensions: must be 2 or 3"),
        ('matches: "(?i)head"', "max: '3'", 8, "roles.ct.any.0.max: must be a valid number"),
        ('matches: "(?i)head"', "matches: 3", 8, "roles.ct.any.0.matches: must be a valid string"),
        ("moving: [mr]", "moving: [mr]\n  limits: {nmi_noise: '0.1'}", 15, "nmi_noise: must be a valid number"),
        (
            "moving: [mr]",
            "moving: [mr]\n  landmark_weight: true",
            15,
            "landmark_weight: must be a valid number",
        ),
        (
            "moving: [mr]",
            "moving: [mr]\nct_windows: {a: ['1', 2]}",
            15,
            "ct_windows.a.0: must be a valid number",
        ),
    ],
)
def test_a_mistake_is_named_with_key_and_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(UsageError) as failed:
        load(tmp_path, GOOD.replace(old, new))
    assert failed.value.code == "E_SPEC"
    assert words in str(failed.value)
    assert f"line {line}:" in failed.value.message


def test_an_empty_or_missing_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"E_SPEC: .*: the spec: must be keys with their values, got nothing\. Correct"
    ):
        load(tmp_path, "")
    with pytest.raises(UsageError, match="neither a file nor the name of a shipped one"):
        load_spec(tmp_path / "no.yaml")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32"])
def test_a_spec_that_is_not_utf8_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "spec.yaml").write_bytes(f"# Müller\n{GOOD}".encode(encoding))
    with pytest.raises(UsageError, match=r"^E_SPEC: The data spec .*spec\.yaml is not UTF-8 text\. Save it as UTF-8\."):
        load_spec(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_bytes(f"# Müller\n{GOOD}".encode("utf-8-sig"))
    assert load_spec(tmp_path / "spec.yaml") == load(tmp_path, GOOD)


def test_the_run_keeps_its_spec(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    save_spec(spec, tmp_path)
    assert of_run("", tmp_path) == spec
    with pytest.raises(UsageError, match=r"E_SPEC: .* and .*/nothing is no folder\."):
        of_run("", tmp_path / "nothing")


def test_a_later_stage_may_have_another_spec_but_not_other_roles(tmp_path: Path) -> None:
    first = load_spec("simulated_head")
    with pytest.raises(UsageError, match="ingest comes first"):
        keep_spec(first, tmp_path)
    save_spec(first, tmp_path)
    changed = first.model_copy(update={"ct_windows": {"bone": (500.0, 2000.0)}})
    keep_spec(changed, tmp_path)
    assert of_run("", tmp_path) == changed
    fewer = {name: role for name, role in first.roles.items() if name != "mr"}
    with pytest.raises(UsageError, match=r"Expected the `roles` with which .* was ingested") as caught:
        keep_spec(first.model_copy(update={"roles": fewer}), tmp_path)
    assert caught.value.code == "E_SPEC" and of_run("", tmp_path) == changed


@pytest.mark.parametrize("path", sorted(shipped("data_specs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_specs_are_valid(path: Path) -> None:
    assert load_spec(path).name == path.stem


def test_the_windows_have_an_order_that_survives(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD + "ct_windows: {lung: [-600, 1500], mediastinum: [40, 400]}\n")
    assert spec.displays["ct"].window == (-1350.0, 150.0)
    save_spec(spec, tmp_path)
    assert list(of_run("", tmp_path).ct_windows) == ["lung", "mediastinum"]
    assert load(tmp_path, GOOD).displays["ct"].window == (-160.0, 240.0)


def test_limits_are_those_of_the_registration() -> None:
    from dataclasses import fields

    from pipeline.registration.findings import AlignmentLimits

    assert {item.name for item in fields(AlignmentLimits)} == set(Limits.model_fields)


@pytest.mark.parametrize(("word", "means"), [("no", False), ("off", False), ("yes", True), ("on", True)])
def test_the_switches_of_yaml_stay_switches(tmp_path: Path, word: str, means: bool) -> None:
    assert load(tmp_path, GOOD.replace("required: false", f"required: {word}")).roles["mr"].required is means


SEGMENT = """
masks: {tumour: {of: ct, labels: {gtv: GTV}}}
segment:
  channels: {ct: CT, mr: T1}
  label: tumour
"""


def test_the_section_segment_says_what_a_network_sees(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD + SEGMENT).segmentation
    assert list(found.channels.items()) == [("ct", "CT"), ("mr", "T1")]
    assert (found.engine, found.step, found.mirroring, found.folds) == ("torch", 0.5, True, ())
    save_spec(load(tmp_path, GOOD + SEGMENT), tmp_path)
    assert of_run("", tmp_path).segmentation == found
    with pytest.raises(UsageError, match="has no `segment` section"):
        _ = load(tmp_path, GOOD).segmentation


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ct: CT,", "ct: CTA,", "the CT role `ct` is named `CTA`: nnU-Net would not take it as HU"),
        ("mr: T1", "mr: ct", "`mr` is MR, but named `ct`: nnU-Net would normalise it as HU"),
        ("mr: T1", "pet: SUV", "`segment` has the channel `pet`, which `roles` does not define"),
        ("mr: T1", "mr: ' '", "every channel needs a name"),
        ("label: tumour", "label: lesion", "`segment` learns `lesion`, which `masks` does not define"),
        ("label: tumour", "step: 2", "less than or equal to 1"),
        ("label: tumour", "folds: [-1]", "greater than or equal to 0"),
        ("label: tumour", "mirrorring: false", "unknown key; did you mean `mirroring`?"),
    ],
)
def test_a_wrong_channel_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UsageError) as failed:
        load(tmp_path, GOOD + SEGMENT.replace(old, new))
    assert failed.value.code == "E_SPEC"
    assert words in failed.value.message


@pytest.mark.parametrize("name", ["CT", "ct", "noNorm", "zscore", "rescale_to_0_1", "RGB_to_0_1", "T1", "CTA"])
def test_the_names_that_normalise_are_nnunets(name: str) -> None:
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
        channel_name_to_normalization_mapping as theirs,
    )

    from pipeline.spec.stages import NORMALISATIONS, wrong_channel

    assert set(NORMALISATIONS) == set(theirs)
    assert bool(wrong_channel("x", name, "CT")) == (name.casefold() not in theirs)
