"""`evaluate.yaml`: tables, charts and their figures, of pictures and of volumes, with and without a network."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion.baselines import BASELINES, fuse
from pipeline.image_fusion.judging import by_network
from pipeline.image_fusion.metrics import MEASURES, measure
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.weights import Preparation, Trained
from pipeline.report.fusion_charts import correlation_chart, measures_chart, pictures_chart
from pipeline.run.options import workflow
from tests.image_fusion.conftest import CONFIGS, write_table

CHARTS = ("performance_analysis.png", "correlation_matrix.png", "edge_analysis.png")


def run(folder: Path, out: Path, **settings: Any) -> dict[str, Any]:
    made = workflow(
        [CONFIGS / "evaluate.yaml"],
        {"dataset_dir": str(folder), "output_dir": str(out), "device": "cpu", "resamples": 50, **settings},
    )
    made.initialize()
    made.run()
    return json.loads((out / "summary_statistics.json").read_text())


def refusal(folder: Path, out: Path, **settings: Any) -> BaseException | None:
    """What a run ends with; MONAI wraps it."""
    with pytest.raises((UsageError, CaseError, RuntimeError)) as raised:
        run(folder, out, **settings)
    found: BaseException | None = raised.value
    while found is not None and not isinstance(found, UsageError | CaseError):
        found = found.__cause__
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def greys(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def test_every_table_has_the_baselines_and_its_figures(pictures: Path, tmp_path: Path) -> None:
    summary = run(pictures, tmp_path)
    assert summary["said"] == "8 pairs of 4 patients"
    assert list(summary["methods"]) == list(BASELINES)
    rows = table(tmp_path / "detailed_metrics.csv")
    assert len(rows) == 8 * len(BASELINES) and list(rows[0]) == ["case_id", "patient_id", "method", *MEASURES]
    ct, mr = (greys(pictures / f"{key}3.png") for key in ("ct", "mr"))
    wanted = measure(np.rint(fuse(ct, mr, "atrous")), ct, mr)
    (row,) = [row for row in rows if row["case_id"] == "case-3" and row["method"] == "atrous"]
    for name, value in wanted.items():
        assert (float(row[name]) if row[name] else None) == (None if value is None else pytest.approx(value, rel=0.01))
    mean = np.mean([float(row["Qabf"]) for row in rows if row["method"] == "max"])
    found = summary["methods"]["max"]["Qabf"]
    assert found["mean"] == pytest.approx(mean) and found["low"] < mean < found["high"]
    assert summary["methods"]["ct"]["SCD"]["mean"] is None  # of a copy it is undefined
    assert any("No network was judged" in note for note in summary["notes"])
    assert any("fewer than ten" in note for note in summary["notes"])
    for name in CHARTS:
        assert min(Image.open(tmp_path / name).size) > 300
    assert not (tmp_path / "attention_visualization.png").exists()
    benchmark = {row["method"]: row for row in table(tmp_path / "performance_benchmark.csv")}
    assert list(benchmark) == list(BASELINES)
    assert float(benchmark["max"]["mvoxel_per_s"]) == pytest.approx(
        60 * 52 / 1e6 / float(benchmark["max"]["seconds"]), rel=0.5
    )
    assert float(benchmark["atrous"]["memory_mb"]) > 5 * 4 * 60 * 52 / 1e6


def test_a_network_is_judged_beside_them(trained: Path, pictures: Path, tmp_path: Path) -> None:
    summary = run(pictures, tmp_path, weights=str(trained), methods=["max"])
    assert list(summary["methods"]) == ["max", "network"]
    assert any("has learned from 4 pairs" in note for note in summary["notes"])
    assert any("trained on SSIM" in note for note in summary["notes"])
    assert min(Image.open(tmp_path / "attention_visualization.png").size) > 300
    assert table(tmp_path / "performance_benchmark.csv")[1]["memory_mb"] == ""  # a processor counts none
    assert run(pictures, tmp_path, methods=["max"])["pairs"] == 8
    assert not (tmp_path / "attention_visualization.png").exists()


def test_volumes_and_images_fused_elsewhere(heads: Path, tmp_path: Path) -> None:
    import nibabel as nib

    folder = tmp_path / "data"
    shutil.copytree(heads, folder)
    rows = [dict(row) for row in table(folder / "cases.csv")]
    for row in rows:
        hu = np.asarray(nib.load(folder / row["ct"]).dataobj, dtype=np.float32)
        image = nib.Nifti1Image(((hu + 100) / 500).clip(0, 1), np.diag([3.0, 3, 3, 1]))
        nib.save(image, folder / f"{row['case_id']}.nii")
        row["theirs"] = f"{row['case_id']}.nii"
    write_table(folder, rows)
    summary = run(folder, tmp_path / "out", fused=["theirs"], methods=["ct", "atrous"])
    assert summary["patients"] == 2 and list(summary["methods"]) == ["ct", "atrous", "theirs"]
    theirs = summary["methods"]["theirs"]
    assert theirs["bone"]["mean"] == pytest.approx(1.0) and theirs["SSIM_CT"]["mean"] == pytest.approx(1.0)
    assert theirs["Qabf_evaluator"]["mean"] is None  # 2D only
    assert table(tmp_path / "out" / "performance_benchmark.csv")[2]["seconds"] == ""
    for row in rows:  # 4 mm to the right: of as many voxels, but not there
        moved, shift = nib.load(folder / row["theirs"]), np.pad([[4.0]], ((0, 3), (3, 0)))
        nib.save(nib.Nifti1Image(np.array(moved.dataobj), moved.affine + shift), folder / row["theirs"])
    found = refusal(folder, tmp_path / "out", fused=["theirs"], methods=["ct"])
    assert isinstance(found, CaseError) and found.code == "E_GRID" and "mm off" in found.message
    assert not tracemalloc.is_tracing()  # or all that this process does next would be slow


def test_a_pair_that_cannot_be_judged_is_named(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(pictures, folder)
    Image.new("L", (52, 60), 7).save(folder / "mr2.png")
    Image.new("RGB", (52, 60), (9, 0, 0)).save(folder / "ct5.png")
    summary = run(folder, tmp_path / "out", methods=["max"])
    assert summary["pairs"] == 6 and set(summary["failed"]) == {"case-2", "case-5"}
    assert any(note == "2 pairs could not be judged." for note in summary["notes"])
    for number in range(8):
        Image.new("L", (52, 60), 7).save(folder / f"mr{number}.png")
    found = refusal(folder, tmp_path / "out", methods=["max"])
    assert isinstance(found, CaseError) and found.code == "E_BLANK"


def test_what_is_refused(trained: Path, pictures: Path, tmp_path: Path) -> None:
    for settings, code, words in (
        ({"methods": ["atrouss"]}, "E_OPTION", "did you mean `atrous`"),
        ({"method": ["atrous"]}, "E_OPTION", "did you mean methods"),
        ({"weights": str(trained), "windows": [[0.5, 1.0]]}, "E_OPTION", "no windows beside a network"),
        ({"weights": str(trained), "weights_sha256": "0" * 64}, "E_WEIGHTS", "not the expected ones"),
        ({"fused": ["theirs"]}, "E_TABLE", "theirs"),
    ):
        found = refusal(pictures, tmp_path, **settings)
        assert isinstance(found, UsageError) and found.code == code and words in found.message, settings


def test_a_network_for_slices_takes_a_volume_by_its_slices() -> None:
    torch.manual_seed(0)
    network = ImageFusionNet(2).eval()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    trained = Trained(network, Preparation(("ct", "mr"), [[0, 1]] * 3, (48, 48)), ())
    image = torch.rand(4, 34, 33, 3)
    found = by_network(trained, image)
    assert np.shape(found) == (11, 34, 33, 3)
    for of_volume, of_slice in zip(found, by_network(trained, image[..., 1]), strict=True):
        np.testing.assert_allclose(of_volume[..., 1], of_slice, atol=1e-6)


def test_a_network_for_volumes_takes_no_pictures() -> None:
    trained = Trained(ImageFusionNet(3, levels=2).eval(), Preparation(("ct", "mr"), [[0, 1]] * 3, (32, 32, 32)), ())
    assert np.shape(by_network(trained, torch.rand(4, 40, 33, 35))) == (9, 40, 33, 35)
    with pytest.raises(CaseError) as raised:
        by_network(trained, torch.rand(4, 40, 33))
    assert raised.value.code == "E_GRID"


def test_charts_are_the_same_bytes_for_the_same_input() -> None:
    matrix = np.array([[1.0, np.nan], [-0.5, 1.0]])
    means = {"SD": {"max": (1.0, 0.5, 2.0), "a_$b": (2.0, None, None)}}
    rows = [{"CT": np.eye(9), "MR": 2 * np.eye(9)}]
    for draw in (
        lambda: correlation_chart(["SD", "SF"], matrix, "t"),
        lambda: measures_chart(means, "t"),
        lambda: pictures_chart(rows, {"MR": "Qabf"}, "t"),
    ):
        found = draw()
        assert found == draw() and Image.open(io.BytesIO(found)).format == "PNG"


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network after one epoch."""
    from tests.image_fusion.conftest import SMALL

    out = tmp_path_factory.mktemp("judged")
    settings = {**SMALL, "max_epochs": 1, "dataset_dir": str(pictures), "output_dir": str(out)}
    made = workflow([CONFIGS / "train.yaml", CONFIGS / "overlays" / "measures.yaml"], settings)
    made.initialize()
    made.run()
    return out / "model.pt"
