from __future__ import annotations

import pytest

from tests.preprocessing.phantom import Head, make_head


@pytest.fixture(scope="session")
def head() -> Head:
    return make_head()
