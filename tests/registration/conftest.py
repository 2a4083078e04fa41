from __future__ import annotations

import re

import pytest

from pipeline.registration import Method, Registration, RegistrationSettings, Side
from pipeline.registration.register import register
from pipeline.shipped import shipped
from tests.registration.phantom import HeadPair, head_pair

MAPS = shipped("bundles", "register", "configs")
STARTS = 2


def quick(name: str, **changes: object) -> str:
    """A shipped parameter map with other values."""
    text = (MAPS / f"{name}.txt").read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"^\({key} .*\)$", f"({key} {value})", text, flags=re.MULTILINE)
        assert count == 1, key
    return text


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
    """The shipped map with half the iterations: the phantom is coarse."""
    return quick("rigid_ct_mr", MaximumNumberOfIterations=250)


@pytest.fixture(scope="session")
def found(pair: HeadPair, parameters: str) -> Registration:
    """The typical pair, registered once for all tests."""
    settings = RegistrationSettings(Method("rigid", (parameters,)), starts=STARTS)
    return register(Side(pair.ct, "CT"), Side(pair.mr, "MR"), settings)
