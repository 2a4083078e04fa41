"""Say in plain JSON types what an object is going to do, so that a change of it can be noticed."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import logging
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_PLAIN = (str, int, float, bool, type(None))
#: State that changes while an object works and says nothing about what it was configured to do.
_IGNORED = (np.random.RandomState, np.random.Generator, torch.Generator, logging.Logger, types.ModuleType)


def describe(value: Any, _above: tuple[int, ...] = ()) -> Any:
    """Describe a configured object by its class and its attributes, down to plain values.

    The instance is described, not the text that configured it: so defaults count, and the same chain written in
    another way is the same chain. Arrays and tensors count by content.

    Args:
        value: a transform, a chain, a setting.

    Returns:
        Nested dictionaries, lists and plain values, equal for objects that do the same.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, _IGNORED) or id(value) in _above:
        return None
    plain = _describe_value(value, (*_above, id(value)))
    return plain if plain is not None else _describe_object(value, (*_above, id(value)))


def _describe_value(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): describe(item, above) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((describe(item, above) for item in value), key=str)
    if isinstance(value, list | tuple | range):
        return [describe(item, above) for item in value]
    return None


def _describe_object(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.dtype | torch.dtype):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    if isinstance(value, types.MethodType):
        return [value.__func__.__qualname__, describe(value.__self__, above)]
    if isinstance(value, functools.partial):
        return [describe(part, above) for part in (value.func, value.args, value.keywords)]
    names = [item.name for item in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else _attributes(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"class": kind, **{name: describe(getattr(value, name), above) for name in names}}


def _attributes(value: Any) -> list[str]:
    """The names of an object's own attributes that say something, in a stable order."""
    return sorted(name for name, item in getattr(value, "__dict__", {}).items() if not isinstance(item, _IGNORED))
