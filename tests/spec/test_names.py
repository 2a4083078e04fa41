from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import REMEDIES, UsageError
from pipeline.shipped import shipped
from pipeline.spec.explain import find_spec, shipped_specs
from pipeline.spec.roles import ROLE_NAME, role_of
from pipeline.spec.spec import load_spec, of_ingest, of_run


def test_the_shipped_specs_are_the_files_of_the_folder() -> None:
    files = sorted(shipped("data_specs").glob("*.yaml"))
    assert list(shipped_specs().items()) == [(path.name.removesuffix(".yaml"), path) for path in files]


def test_a_spec_is_found_by_its_path_and_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_spec("ct_mr_head") == shipped("data_specs", "ct_mr_head.yaml")
    assert load_spec("prostate_mr").name == of_ingest("prostate_mr").name == "prostate_mr"
    (tmp_path / "ct_mr_head").write_text("name: mine")  # a file goes before a name
    monkeypatch.chdir(tmp_path)
    assert find_spec("ct_mr_head") == Path("ct_mr_head")


@pytest.mark.parametrize(
    ("text", "role"),
    [("T1 (Gd)", "t1_gd"), ("FLAIR_", "flair"), ("?", "channel"), ("2D T1", "channel_2d_t1")],
)
def test_a_text_as_the_name_of_a_role(text: str, role: str) -> None:
    assert role_of(text) == role and re.match(ROLE_NAME, role)


@pytest.mark.parametrize("wrong", ["ct_mr_haed", "data_specs/ct_mr_haed.yaml"])
def test_what_is_neither_is_refused_with_the_nearest_name(wrong: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_spec(wrong)
    assert refused.value.code == "E_SPEC" and wrong in refused.value.message
    assert refused.value.message.endswith("did you mean `ct_mr_head`?")
    assert "at that line" not in refused.value.remedy and "prostate_mr" in refused.value.remedy


def test_a_name_like_no_other_has_no_nearest() -> None:
    with pytest.raises(UsageError, match=r"shipped one\. Give a path"):
        find_spec("zzz")


def test_no_spec_at_all_is_not_at_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E_SPEC: .*\(--spec_file\) and .* holds none\. Name one") as refused:
        of_run("", tmp_path)
    assert "line" not in refused.value.remedy and "line" not in REMEDIES["E_SPEC"]
