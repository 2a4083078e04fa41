"""Every response map of IBSI-2 on the digital phantoms, and every value of the filtered CT phantom."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.check_ibsi2 import check_maps, check_values


def test_every_response_map_of_ibsi(real_images: Path) -> None:
    maps = list(check_maps(real_images))
    assert not [item for item in maps if not item.is_right]
    assert len(maps) == len(list((real_images / "ibsi2_reference/response_maps").iterdir())) == 33
    assert next(item for item in maps if item.test == "2_a").deviation < 1e-4


@pytest.mark.slow
def test_every_filtered_value_of_ibsi(real_images: Path) -> None:
    rows = list(check_values(real_images))
    assert not [row for row in rows if not row.is_right]
    assert len(rows) == 323  # of 324 lines one has no value
