"""Every reference value of IBSI-1: the digital phantom, and configurations A to D of the CT phantom."""

from __future__ import annotations

from pathlib import Path

from benchmarks.check_ibsi import check


def test_every_value_of_ibsi(real_images: Path) -> None:
    rows = check(real_images)
    assert not [row for row in rows if not row.is_right]
    assert sum(row.family != "diagnostics" for row in rows) == 1594
    assert sum(row.configuration == "phantom" for row in rows) == 482
