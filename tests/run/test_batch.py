from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.run import batch
from pipeline.run.stage import Stage
from pipeline.store import records


class KillProcess:
    """A chain that does what a segmentation fault does, for one of the cases."""

    def __call__(self, case: dict[str, Any]) -> dict[str, Any]:
        if case["case_id"] == "case-bad":
            os._exit(11)
        return case


@pytest.mark.slow
def test_a_case_that_kills_its_process_is_one_failed_case(tmp_path: Path) -> None:
    stage = Stage("deadly", KillProcess(), {}, {}, tmp_path)
    with batch.mapper(2) as map_cases:
        found = stage.run([{"case_id": name} for name in ("case-1", "case-bad", "case-2")], map_cases)
    assert [record.status for record in found] == ["done", "failed", "done"]
    assert found[1].error is not None and found[1].error.code == "E_CRASH"
    assert records.of_run(tmp_path)["case-bad"][0].error == found[1].error


def test_one_process_maps_in_order() -> None:
    with batch.mapper(1) as map_cases:
        assert map_cases is map


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_NO_STAGE"):
        batch.load("ingets", batch.Plan(tmp_path, tmp_path / "out"))


def test_a_stage_keeps_the_code_of_its_parts(tmp_path: Path) -> None:
    """Without a data spec in the run folder `register` cannot be built; MONAI's wrapping must not hide why."""
    with pytest.raises(UsageError, match="E_SPEC"):
        batch.load("register", batch.Plan(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize("written", ["{0}/DOE^JANE", "--input={0}/DOE^JANE", "{0}//DOE^JANE/", "-i={0}/x/../DOE^JANE"])
def test_the_manifest_does_not_name_the_input(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "DOE^JANE"
    monkeypatch.setattr("sys.argv", ["tandem", "run", written.format(tmp_path), "--out", "out"])
    (tmp_path / "out").mkdir()
    batch._write_manifest(batch.Plan(root, tmp_path / "out"), ("ingest",))
    text = (tmp_path / "out" / "run.json").read_text()
    assert "DOE" not in text and "<input>" in text
