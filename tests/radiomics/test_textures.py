"""Every texture matrix, in every aggregation, against the definitions in plain loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.radiomics import Settings, extract
from pipeline.radiomics.emphasis import DEPENDENCES, DISTANCES, RUNS, SIZES
from tests.radiomics import definitions as by_hand

TEXTURE = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")


def levels_of(
    seed: int, shape: tuple[int, int, int] = (6, 5, 4), highest: int = 4, full: float = 0.8
) -> npt.NDArray[Any]:
    """Levels with holes; the third slice is of one level, the corner stands alone."""
    random = np.random.default_rng(seed)
    levels = random.integers(1, highest + 1, shape) * (random.random(shape) < full)
    levels[:, :, 2] = np.where(levels[:, :, 2] > 0, 2, 0)
    levels[0, 0, 0] = highest
    levels[0, 1, 0] = levels[1, 0, 0] = levels[1, 1, 0] = 0
    return levels


def measured(levels: npt.NDArray[Any], **settings: Any) -> dict[str, float | None]:
    chosen = Settings(bins=None, ivh_bins=None, families=TEXTURE, **settings)
    return extract(levels.astype(float), (levels > 0).astype(np.uint8), np.eye(4), chosen).values


def assert_same(values: dict[str, float | None], family: str, kind: str, wanted: dict[str, float]) -> None:
    for name, number in wanted.items():
        found = values[f"{family}_{name}_{kind}"]
        assert found == pytest.approx(number, rel=1e-10, abs=1e-12), f"{family}_{name}_{kind}"


@pytest.mark.parametrize(("seed", "distance"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_pairs(seed: int, distance: int) -> None:
    levels = levels_of(seed)
    values = measured(levels, distance=distance)
    matrices = by_hand.by_aggregation(levels, lambda part, step: by_hand.pairs(part, step, distance))
    for kind, each in matrices.items():
        features = [by_hand.pair_features(matrix, 4) for matrix in each if matrix.any()]
        assert_same(values, "cm", kind, by_hand.mean_of(features))


@pytest.mark.parametrize("seed", range(3))
def test_runs(seed: int) -> None:
    levels = levels_of(seed, highest=2)
    values = measured(levels)
    for kind, each in by_hand.by_aggregation(levels, by_hand.runs).items():
        features = [by_hand.emphasis_features(item, (item.sum(0) * np.arange(item.shape[1])).sum()) for item in each]
        assert_same(values, "rlm", kind, renamed(by_hand.mean_of(features), RUNS))


@pytest.mark.parametrize(("seed", "column"), product(range(2), (1, 2)))
def test_zones(seed: int, column: int) -> None:
    levels = levels_of(seed, (7, 6, 6), 2, 0.97)
    family, names = (("szm", SIZES), ("dzm", DISTANCES))[column - 1]
    values = measured(levels)
    found = by_hand.undirected(
        levels, lambda part, flat: by_hand.as_matrix(by_hand.zones(part, levels > 0, flat), column)
    )
    sizes = by_hand.undirected(levels, lambda part, flat: np.array([(part > 0).sum()]))
    for kind, each in found.items():
        features = [
            by_hand.emphasis_features(matrix, float(count[0])) for matrix, count in zip(each, sizes[kind], strict=True)
        ]
        assert_same(values, family, kind, renamed(by_hand.mean_of(features), names))


@pytest.mark.parametrize(("seed", "distance", "alpha"), [(0, 1, 0), (1, 1, 1), (2, 2, 0), (3, 2, 2)])
def test_dependences(seed: int, distance: int, alpha: int) -> None:
    levels = levels_of(seed)
    values = measured(levels, distance=distance, alpha=alpha)
    matrices = by_hand.undirected(levels, lambda part, flat: by_hand.dependences(part, flat, distance, alpha))
    for kind, each in matrices.items():
        features = [by_hand.emphasis_features(matrix, matrix.sum()) for matrix in each]
        assert_same(values, "ngl", kind, renamed(by_hand.mean_of(features), DEPENDENCES))


@pytest.mark.parametrize(("seed", "distance"), [(0, 1), (1, 2)])
def test_tones(seed: int, distance: int) -> None:
    levels = levels_of(seed)
    values = measured(levels, distance=distance)
    matrices = by_hand.undirected(levels, lambda part, flat: by_hand.tones(part, flat, distance))
    for kind, each in matrices.items():
        features = [by_hand.tone_features(matrix) for matrix in each if matrix.any()]
        assert_same(values, "ngt", kind, by_hand.mean_of(features))


def renamed(features: dict[str, float], names: list[str]) -> dict[str, float]:
    return dict(zip(names, features.values(), strict=False))


def test_matrices_of_many_levels_are_those_of_few_made_by_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = levels_of(4)
    few = measured(levels)
    monkeypatch.setattr("pipeline.radiomics.levels._DENSE_CELLS", 0)
    monkeypatch.setattr("pipeline.radiomics.levels._DENSE_PART", 0)
    assert measured(levels) == pytest.approx(few, rel=1e-12)


def test_levels_that_are_far_apart() -> None:
    levels = levels_of(5) ** 7
    assert measured(levels)["rlm_hgre_3D_comb"] == pytest.approx(rows_squared(levels), rel=1e-12)


def rows_squared(levels: npt.NDArray[Any]) -> float:
    matrices = [by_hand.runs(np.searchsorted(np.unique(levels), levels), step) for step in by_hand.STEPS]
    merged = sum(matrices[1:], matrices[0]).sum(1)
    values = np.pad(np.unique(levels).astype(float), (0, 10 - len(np.unique(levels))))
    return float((merged * values**2).sum() / merged.sum())
