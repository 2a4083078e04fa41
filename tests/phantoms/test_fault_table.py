"""The table's series hold what it says they hold: each slice is read back alone and compared with its own position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.phantoms import faults
from tests.phantoms.fault_table import TABLE
from tests.phantoms.faults.editing import seen_at_position
from tests.phantoms.oracle import ROUNDING_HU
from tests.phantoms.planted import Planted

#: Rows whose files no simple reader takes, or whose frames do not lie in a file's own header.
NOT_PLAIN = (16, 28, 41, 42)


def plain() -> list[Planted]:
    return [item for item in TABLE if item.verdict != "refused" and item.row not in NOT_PLAIN]


def test_titles_are_unique_and_verdicts_agree_with_codes() -> None:
    assert len({item.title for item in TABLE}) == len(TABLE) > 100
    for item in TABLE:
        assert any(code.startswith("E_") for code in item.codes) or item.verdict != "refused", item.title
        assert any(code.startswith("N_") for code in item.codes) == (item.verdict == "fixed"), item.title


@pytest.mark.parametrize("item", plain(), ids=lambda item: item.title)
def test_slices_show_what_lies_at_their_positions(tmp_path: Path, item: Planted) -> None:
    truths = item.write(tmp_path)
    offsets = [truth.offset_hu for truth in truths]
    checked = 0
    for path in (path for path in tmp_path.iterdir() if path.name.startswith("IM") and "L" not in path.name):
        slice_ = dcmread(path, force=True)
        expected = seen_at_position(slice_)
        if "PixelPaddingValue" in slice_:
            expected[expected > faults.PADDED_ABOVE_HU] = np.nan
        shown = slice_.pixel_array * float(slice_.get("RescaleSlope", 1)) + float(slice_.get("RescaleIntercept", 0))
        errors = [np.nanmax(np.abs(shown - expected - offset), initial=0) for offset in offsets]
        assert min(errors) <= ROUNDING_HU
        checked += 1
    assert checked >= sum(truth.shape[2] for truth in truths) / len(truths)
