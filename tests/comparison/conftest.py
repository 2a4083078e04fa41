"""A small cohort with a known truth, on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.phantoms.mechanism_files import write_mechanism_cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases of six patients."""
    folder = tmp_path_factory.mktemp("data")
    write_mechanism_cases(folder, "additive", 12, seed=3)
    return folder
