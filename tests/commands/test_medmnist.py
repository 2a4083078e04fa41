"""An archive of MedMNIST becomes pictures and a table; other arrays are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import api
from pipeline.errors import UsageError
from tests.commands.test_table import rows_of, write


def test_medmnist_becomes_pictures_and_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 6), ("val", 4), ("test", 2)):
        arrays[f"{name}_images"] = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    arrays["val_images"][3] = arrays["train_images"][1]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=r"E_DUPLICATE: .* train/1/00001.png = valid/1/00003.png"):
        api.table(tmp_path / "a.npz", tmp_path / "out", "medmnist")
    found = api.table(tmp_path / "a.npz", tmp_path / "out", "medmnist", duplicates="leave_out", stream="cxr")
    rows = rows_of(found.cases)
    assert (
        len(rows) == 9 and len(rows_of(found.test)) == 2 and rows_of(found.left_out)[0]["file"] == "train/1/00001.png"
    )
    for row in rows:
        name = {"0": "val", "1": "train"}[row["fold"]]
        number = int(Path(row["cxr"]).stem)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["cxr"])), arrays[f"{name}_images"][number])
        assert int(row["label"]) == arrays[f"{name}_labels"][number, 0]
    write(tmp_path / "out" / "train" / "0" / "other.png", 1)
    with pytest.raises(UsageError, match="E_OUT: Expected a folder without anything else"):
        api.table(tmp_path / "a.npz", tmp_path / "out", "medmnist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": None}, "E_TABLE: Expected train_images, train_labels and those of val or test in a.npz, got"),
        ({"train_images": np.zeros((4, 28, 28, 3), np.uint8)}, "E_TABLE: Expected train_images as grey 8-bit pictures"),
        ({"train_images": np.zeros((4, 28, 28))}, "E_TABLE: Expected train_images as grey 8-bit pictures"),
        ({"train_labels": np.zeros((4, 14), int)}, "E_TABLE: Expected one class a picture in train_labels"),
        ({"train_labels": np.zeros((3, 1), int)}, "E_TABLE: Expected one class a picture in train_labels"),
        (
            dict.fromkeys(("train_labels", "val_labels"), np.array([0, 2, 0, 2])),
            "E_TABLE: Expected labels from 0 without a gap",
        ),
    ],
)
def test_other_arrays_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {f"{name}_images": np.zeros((4, 28, 28), np.uint8) for name in ("train", "val")}
    arrays |= {f"{name}_labels": np.array([[0], [1], [0], [1]]) for name in ("train", "val")}
    np.savez(tmp_path / "a.npz", **{name: value for name, value in (arrays | change).items() if value is not None})
    with pytest.raises(UsageError, match=message):
        api.table(tmp_path / "a.npz", tmp_path / "out", "medmnist")
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_the_eight_pictures_of_pneumoniamnist_are_found(real_images: Path, tmp_path: Path) -> None:
    path = real_images / "pneumoniamnist" / "pneumoniamnist_train_val.npz"
    with pytest.raises(UsageError, match="E_DUPLICATE: Expected each file once, got 8 that stand in several splits"):
        api.table(path, tmp_path / "out", "medmnist")
    found = api.table(path, tmp_path / "out", "medmnist", duplicates="leave_out")
    assert found.counts["valid"] == {"0": 135, "1": 389} and found.counts["train"] == {"0": 1214, "1": 3484}
