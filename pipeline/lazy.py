"""Let a package offer names that are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def resolve(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What a package's `__getattr__` (PEP 562) gives for a public name.

    Args:
        package: the package's `__name__`.
        homes: public name -> the module of the package that defines it.
        name: what was asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(f"{package}.{homes[name]}"), name)
