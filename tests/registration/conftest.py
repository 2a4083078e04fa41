from __future__ import annotations

import pytest

from pipeline.shipped import shipped
from tests.registration.phantom import HeadPair, head_pair


@pytest.fixture(scope="session")
def pair() -> HeadPair:
    """A typical misalignment."""
    return head_pair((9, -8, 7), (9, -7, 10))


@pytest.fixture(scope="session")
def far_pair() -> HeadPair:
    """A misalignment that the headers do not come near."""
    return head_pair((33, -30, 28), (30, -28, 26))


@pytest.fixture(scope="session")
def parameters() -> str:
    return shipped("bundles", "register", "configs", "rigid_ct_mr.txt").read_text()
