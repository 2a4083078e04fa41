"""Every bundle's metadata is complete, and valid against MONAI's schema where the schema is at hand."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, verify_metadata
from packaging.version import Version

from pipeline import __version__
from pipeline.shipped import shipped

BUNDLES = sorted(path.name for path in shipped("bundles").iterdir() if path.is_dir())
#: Bundles that are stages: they run over cases.
STAGES = sorted(path.parent.parent.name for path in shipped("bundles").glob("*/configs/inference.yaml"))
CONFIGS = sorted(
    path.relative_to(shipped("bundles")).as_posix() for path in shipped("bundles").glob("*/configs/*.yaml")
)


def metadata(name: str) -> dict:
    return json.loads((shipped("bundles", name, "configs", "metadata.json")).read_text())


@pytest.mark.parametrize("name", BUNDLES)
def test_the_metadata_tell_the_truth(name: str) -> None:
    found = metadata(name)
    assert found["version"] == Version(__version__).base_version  # of the release that the code comes after
    assert found["version"] in found["changelog"]
    assert found["monai_version"] == version("monai")
    assert found["pytorch_version"] == version("torch")
    assert found["numpy_version"] == version("numpy")
    for package, pinned in found["required_packages_version"].items():
        assert version(package) == pinned
    assert "Not a medical device" in found["intended_use"]


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_is_complete(name: str) -> None:
    root = shipped("bundles", name)
    for part in ("configs/metadata.json", "configs/logging.conf", "docs/README.md", "LICENSE"):
        assert (root / part).stat().st_size > 0
    assert (root / "LICENSE").read_bytes() == shipped("LICENSE").read_bytes()
    assert not (root / "scripts").exists()


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_carry_a_comment_and_expressions_are_short(config: str) -> None:
    """What a user may change stands at the top with a comment; no expression is longer than one call."""
    lines = shipped("bundles", config).read_text().splitlines()
    settings = [line for line in lines if line and line[0].isalpha() and ": " in line and "$" not in line]
    assert "output_dir" in {line.split(":")[0] for line in settings}
    for line in settings:
        assert " # " in line or line.startswith(("run:", "after:")), line
    for line in lines:
        if '"$' in line:
            assert line.split('"$')[1].count("(") <= 1 and "lambda" not in line, line


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_its_parts(name: str) -> None:
    parser = ConfigParser()
    parser.read_config(str(shipped("bundles", name, "configs", "inference.yaml")))
    for key in ("dataset_dir", "output_dir", "overwrite", "stage", "cases", "chain", "run"):
        assert key in parser
    assert ("spec_file" in parser) == (name != "report")  # a report says what the records say


@pytest.mark.real_data
@pytest.mark.parametrize("name", BUNDLES)
def test_the_metadata_are_valid_against_the_schema(name: str, real_images: Path, tmp_path: Path) -> None:
    """MONAI's own check; the schema file is put where it would otherwise be downloaded to."""
    schema = shutil.copy(real_images / "monai_schema" / "meta_schema_20240725.json", tmp_path / "schema.json")
    path = str(shipped("bundles", name, "configs", "metadata.json"))
    verify_metadata(meta_file=path, filepath=str(schema), create_dir=False)
    broken = metadata(name)
    del broken["task"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=str(schema), create_dir=False)
