from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("{0}/DOE^JANE", "<input>"),
        ("--input={0}/DOE^JANE", "--input=<input>"),
        ("{0}//DOE^JANE/", "<input>"),
        ("-i{0}//DOE^JANE", "-i<input>"),
        ("-i={0}/x/../DOE^JANE", "-i=<input>"),
        ("--spec={0}/DOE^JANE/spec.yaml", "--spec=<input>/…"),
        ("{0}/DOE^JANE-out", "<input>-out"),
    ],
)
def test_the_manifest_does_not_name_the_input(
    written: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "DOE^JANE"
    root.mkdir()
    (root / "spec.yaml").touch()
    monkeypatch.setattr("sys.argv", ["tandem", "run", written.format(tmp_path), "--out", "out"])
    (tmp_path / "out").mkdir()
    batch.write_manifest(batch.Plan(root, tmp_path / "out"), ("ingest",))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["command"][1:3] == ["run", kept]


@pytest.mark.parametrize("root", ["in", ".", "d"])
def test_other_words_of_the_command_stay_as_they_are(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(root).mkdir(exist_ok=True)
    words = ["--spec", "../my_study.yaml", "--stages", "ingest,register", "--device", "", "--out", "../out"]
    monkeypatch.setattr("sys.argv", ["tandem", "run", root, *words])
    out = tmp_path.parent / f"{tmp_path.name}-out"
    out.mkdir()
    batch.write_manifest(batch.Plan(Path(root), out), ("ingest",))
    assert json.loads((out / "run.json").read_text())["command"] == ["tandem", "run", "<input>", *words]


def test_later_stages_need_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_NO_CASES"):
        batch.run(batch.Plan(tmp_path, tmp_path / "out", Path("sts_ct_mr"), ("register",)))
    assert not (tmp_path / "out").exists()
