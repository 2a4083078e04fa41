"""Fixtures for all tests: the real images, if there are any, and a private folder for keys that is not the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm import kept_sandboxes
from tests.whole_run import WholeRun, made_once

#: The files that take minutes. While the first makes the run that several of them share, another core does the second.
LONG_FILES = (
    *("test_kill.py", "test_training.py", "test_register.py", "test_fuse_run.py", "test_fuse.py", "test_faults.py"),
    *("test_run.py", "test_canaries.py", "test_cohort.py", "test_demo_weights.py"),
)


@pytest.fixture(autouse=True)
def tandem_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key folder of the test's own: no test may touch the user's."""
    home = tmp_path_factory.mktemp("tandem-home")
    monkeypatch.setenv("TANDEM_HOME", str(home))
    return home


@pytest.fixture(scope="session", autouse=True)
def kept_servers() -> Iterator[None]:
    """What reads foreign files is loaded once for all tests of a process: each would load it twice, for half a second.

    Each task still has a child of its own. `tests/test_child.py` and the commands' own processes start theirs.
    """
    with kept_sandboxes():
        yield


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images; without it the test is skipped."""
    folder = os.environ.get("TANDEM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TANDEM_DATA does not point to the real images")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """One run of all stages over a simulated cohort, which all tests and all of xdist's processes share."""
    own = tmp_path_factory.getbasetemp()
    return made_once((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "whole_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below tests/real_data needs the real images; the long files start first, so that no core waits."""
    order = {name: number for number, name in enumerate(LONG_FILES)}
    for item in items:
        if "real_data" in item.path.parts:
            item.add_marker(pytest.mark.real_data)
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
