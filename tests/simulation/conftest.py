from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.simulation.cohort import Cohort, simulate_cohort
from pipeline.simulation.head import HeadTemplate, load_head_template


@pytest.fixture(scope="session")
def template() -> HeadTemplate:
    return load_head_template(2)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three patients, the last one faulty."""
    out: Path = tmp_path_factory.mktemp("cohort")
    return simulate_cohort(out, cases=3, spacing_mm=4.0, seed=5)
