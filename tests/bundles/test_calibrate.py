"""The calibrate bundle, as `python -m monai.bundle run`: what it fits, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests import warm

WORDS = ("run", "--config_file", "bundles/calibrate/configs/calibrate.yaml")


def test_it_finds_the_temperature_and_writes_the_report(tmp_path: Path) -> None:
    """z ~ N(0, 9), y ~ softmax(z / 2): the true temperature is 2."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (1500, 3))
    odds = np.exp(logits / 2)
    chances = (odds / odds.sum(1, keepdims=True)).cumsum(1)
    labels = (rng.random((1500, 1)) > chances).sum(1)
    np.save(tmp_path / "logits.npy", logits.astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    files = ("--logits", tmp_path / "logits.npy", "--labels", tmp_path / "labels.npy", "--output_dir", tmp_path)
    done = warm.run("monai.bundle", *WORDS, *files, "--method", "temperature")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert found["method"] == "temperature"
    assert abs(found["parameters"]["temperature"] - 2.0) < 0.25
    assert (tmp_path / "calibration.pdf").read_bytes().startswith(b"%PDF")


def test_wrong_input_exits_with_two(tmp_path: Path) -> None:
    files = ("--logits", tmp_path / "no.npy", "--labels", tmp_path / "no.npy", "--output_dir", tmp_path)
    done = warm.run("monai.bundle", *WORDS, *files)
    assert done.returncode == 2
    assert "E_INPUT" in done.stderr
