from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd, RandFlipd, ScaleIntensityRanged

from pipeline.run.fingerprint import describe


@dataclass(frozen=True)
class Setting:
    sigma_mm: float = 1.0
    path: Path = Path("a/b")


def chain(**changes: float) -> Compose:
    scale = ScaleIntensityRanged("ct", **({"a_min": -160, "a_max": 240, "b_min": 0, "b_max": 1} | changes))
    return Compose([LoadImaged("ct", ensure_channel_first=True), Orientationd("ct", axcodes="RAS"), scale])


def test_two_instances_of_one_chain_are_equal_and_plain() -> None:
    assert describe(chain()) == describe(chain())
    assert json.loads(json.dumps(describe(chain()))) == describe(chain())


@pytest.mark.parametrize("change", [{"a_min": -161}, {"a_max": 241.5}, {"b_max": 2}])
def test_each_argument_counts(change: dict[str, float]) -> None:
    assert describe(chain(**change)) != describe(chain())


def test_order_and_class_count() -> None:
    first, second, third = chain().transforms
    assert describe(Compose([first, third, second])) != describe(Compose([first, second, third]))
    assert describe(Setting()) != describe({"sigma_mm": 1.0, "path": Path("a/b")})


def test_random_state_does_not_count_but_probability_does() -> None:
    used = RandFlipd("ct", prob=0.5)
    used.set_random_state(7)
    assert describe(used) == describe(RandFlipd("ct", prob=0.5))
    assert describe(used) != describe(RandFlipd("ct", prob=0.6))


def test_arrays_count_by_content() -> None:
    assert describe(np.arange(3)) == describe(np.arange(3))
    assert describe(np.arange(3)) != describe(np.arange(3)[::-1])
    assert describe(torch.zeros(2)) != describe(torch.zeros(2, dtype=torch.float64))


def test_cycles_end() -> None:
    @dataclass
    class Node:
        other: object = None

    node = Node()
    node.other = node
    assert describe(node)["other"] is None
