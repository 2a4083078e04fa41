from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.run import batch, loading


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_NO_STAGE"):
        loading.load("ingets", batch.Plan(tmp_path, tmp_path / "out"))


def test_a_stage_keeps_the_code_of_its_parts(tmp_path: Path) -> None:
    """Without a data spec in the run folder `register` cannot be built; MONAI's wrapping must not hide why."""
    with pytest.raises(UsageError, match="E_SPEC"):
        loading.load("register", batch.Plan(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize("written", ["{0}/DOE^JANE", "--input={0}/DOE^JANE", "{0}//DOE^JANE/", "-i={0}/x/../DOE^JANE"])
def test_the_manifest_does_not_name_the_input(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "DOE^JANE"
    monkeypatch.setattr("sys.argv", ["tandem", "run", written.format(tmp_path), "--out", "out"])
    (tmp_path / "out").mkdir()
    batch.write_manifest(batch.Plan(root, tmp_path / "out"), ("ingest",))
    text = (tmp_path / "out" / "run.json").read_text()
    assert "DOE" not in text and "<input>" in text
