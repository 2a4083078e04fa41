"""What the network is told beside images, and what is flagged because it has never seen the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.data import AddTabled, FlagOutOfDomaind
from pipeline.learning.table import Standard

STANDARD = Standard(("age", "volume_ml"), (50.0, 10.0), (10.0, 4.0))


def table(folder: Path, text: str) -> str:
    path = folder / "numbers.csv"
    path.write_text(text)
    return str(path)


def test_numbers_are_standardised_as_in_training(tmp_path: Path) -> None:
    step = AddTabled(table(tmp_path, "volume_ml,case_id,other,age\n16,a,x,45\n,b,y,70\n"), STANDARD)
    assert step({"case_id": "a"})["table"].tolist() == pytest.approx([-0.5, 1.5])
    second = step({"case_id": "b"})["table"]
    assert second[0] == 2 and torch.isnan(second[1])


def test_a_case_without_a_row_fails_alone(tmp_path: Path) -> None:
    step = AddTabled(table(tmp_path, "case_id,age,volume_ml\na,1,2\n"), STANDARD)
    with pytest.raises(CaseError, match=r"E_TABLE.*a row of c"):
        step({"case_id": "c"})


@pytest.mark.parametrize(
    ("text", "standard", "words"),
    [
        ("case_id,age\na,1\n", STANDARD, "E_TABLE.*got no volume_ml"),
        ("case_id,age,volume_ml\na,old,2\n", STANDARD, "E_TABLE.*a number as age of a"),
        ("case_id,age,volume_ml\na,1,2\na,1,2\n", STANDARD, "E_CASE_ID.*two of a"),
        ("case_id,age,volume_ml\na,1,2\n", Standard(), "E_TABLE.*trained without one"),
        (None, STANDARD, "E_TABLE.*a table_file with age, volume_ml"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str | None, standard: Standard, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AddTabled("" if text is None else table(tmp_path, text), standard)


def flags(sides: tuple[float, float, float], spacing: tuple[float, ...] = (), **more: Any) -> list[str]:
    preparation = Preparation(["ct", "mr"], ["ct"], [40, 400], [16] * 3, spacing, more.pop("seen", [1.0, 3.0]))
    case = {"available": torch.tensor([True, True]), "grid_affine": torch.diag(torch.tensor([*sides, 1.0]))}
    return [flag.split(":")[0] for flag in FlagOutOfDomaind(preparation)({**case, **more})["flags"]]


def test_voxels_unlike_those_of_the_training_are_flagged() -> None:
    assert flags((1.0, 1.0, 3.0)) == flags((0.9, 0.9, 3.2)) == []
    assert flags((0.5, 0.5, 1.0)) == flags((1.0, 1.0, 5.0)) == ["N_UNSEEN_VOXELS"]
    # to a network with a voxel size of its own finer images are brought without loss, coarser ones are not
    assert flags((0.5, 0.5, 1.0), (3.0,)) == [] and flags((1.0, 1.0, 5.0), (3.0,)) == ["N_UNSEEN_VOXELS"]
    assert flags((9.0, 9.0, 9.0), seen=()) == []


def test_a_modality_that_is_missing_is_flagged() -> None:
    assert flags((1.0, 1.0, 3.0), available=torch.tensor([True, False])) == ["N_NOT_FUSED"]
    assert flags((1.0, 1.0, 3.0), flags=["N_MERGED: x"]) == ["N_MERGED"]


def test_a_checkpoint_keeps_all_of_it() -> None:
    made = Preparation(["ct"], ["ct"], [40, 400], [16] * 3, (4.0, 4.0, 4.0), (1.0, 2.0), STANDARD.to_plain())
    read = Preparation(**made.to_plain())
    assert read.table == Standard(["age", "volume_ml"], [50.0, 10.0], [10.0, 4.0])
    assert read.to_plain() == made.to_plain() and np.allclose(read.table([50, 14]), [0, 1])
