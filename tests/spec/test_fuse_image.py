"""The section `fuse_image` of a data spec: what is refused, with what remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipeline.errors import UsageError
from pipeline.image_fusion.baselines import BASELINES
from pipeline.run.plan import stages_for
from pipeline.spec.spec import load_spec, save_spec
from pipeline.spec.stages import NETWORK, Method, chosen

SPEC: dict[str, Any] = {
    "name": "head",
    "description": "CT and MR.",
    "roles": {"ct": {"modality": "CT"}, "mr": {"modality": "MR"}, "t2": {"modality": "MR"}},
    "register": {"fixed": "ct", "moving": ["mr"]},
}


def written(folder: Path, section: dict[str, Any], **more: Any) -> Path:
    (folder / "x.yaml").write_text(yaml.safe_dump({**SPEC, "fuse_image": section, **more}))
    return folder / "x.yaml"


def test_a_section_that_says_nothing_takes_ct_and_mr_and_no_network(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, {}))
    found = spec.image_fusion
    assert (found.ct, found.mr, chosen(found.method or "", found.weights), found.file) == ("ct", "mr", "atrous", "")
    assert stages_for(spec)[-2:] == ("fuse_image", "report")
    save_spec(spec, tmp_path)
    assert load_spec(tmp_path / "spec.yaml").fuse_image == found


def test_weights_mean_the_network_and_keep_their_path(tmp_path: Path) -> None:
    found = load_spec(written(tmp_path, {"weights": "here/model.pt", "windows": [[40, 80], [600, 2800]]})).image_fusion
    assert (chosen(found.method or "", found.weights), found.file) == ("network", "here/model.pt")


def test_the_spec_knows_every_method() -> None:
    assert (*BASELINES, NETWORK) == get_args(Method)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"method": "atrus"}, "did you mean `atrous`"),
        ({"windwos": [[40, 80]]}, "did you mean `windows`"),
        ({"windows": [[40, 0]]}, "a level and a width above 0 each, got"),
        ({"windows": [[40, -80]]}, "a level and a width above 0 each, got"),
        ({"windows": [[40, 80], [600, 2800]]}, "2, but atrous looks at CT in one"),
        ({"roles": {"ct": "mr", "mr": "ct"}}, "`mr` as CT, which is of MR; `fuse_image.roles` says which role is CT"),
        ({"roles": {"mr": "flair"}}, "`flair` as MR, which `roles` does not define"),
        ({"roles": {"mr": "t2"}}, "`t2`, which `register` does not align"),
        ({"roles": {"pet": "mr"}}, "must be 'ct' or 'mr', got pet"),
        ({"method": "network"}, "no `weights` are named"),
        ({"method": "max", "weights": "a.pt"}, "`method` is max, which has none"),
        ({"sha256": "00"}, "`sha256` is named, but no `weights` are"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_spec(written(tmp_path, section))
    assert refused.value.code == "E_SPEC" and words in refused.value.message


def test_a_ct_that_is_not_in_hu_has_no_windows_in_hu(tmp_path: Path) -> None:
    roles = {**SPEC["roles"], "ct": {"modality": "CT", "unit": "mg/ml"}}
    with pytest.raises(UsageError, match=r"windows in HU, but the role `ct` is in mg/ml"):
        load_spec(written(tmp_path, {}, roles=roles))
