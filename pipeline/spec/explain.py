"""Refuse what is wrong in a YAML file, and say so: its line, its key, and what the key may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UsageError
from pipeline.shipped import shipped


class Model(BaseModel):
    """A part of a data spec: unknown keys are refused, and what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def explain(path: Path, root: yaml.Node | None, error: Any, beside: Callable[[list[str]], list[str]]) -> str:
    """One validation error as `file, line n: key: what is wrong`.

    Args:
        path: the file.
        root: its parsed nodes, or None where it is empty.
        error: one of pydantic's `errors()`.
        beside: gives the keys that are known at the place of an unknown one.
    """
    where = [str(part) for part in error["loc"]]
    line, key = _line_of(root, list(error["loc"])), ".".join(where) or "the spec"
    if error["type"] == "extra_forbidden":
        problem = f"unknown key{did_you_mean(where[-1], beside(where))}"
    elif error["type"] == "missing":
        problem = "this key is missing"
    else:
        problem = error["msg"].removeprefix("Value error, ")
    return f"{path}, line {line}: {key}: {problem}"


def _line_of(node: yaml.Node | None, loc: list[Any]) -> int:
    """The line of the deepest part of `loc` that is in the file, counted from 1."""
    if node is None:
        return 1
    if loc and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(loc[0]):
                return key.start_mark.line + 1 if len(loc) == 1 else _line_of(value, loc[1:])
    if loc and isinstance(node, yaml.SequenceNode) and isinstance(loc[0], int) and loc[0] < len(node.value):
        return _line_of(node.value[loc[0]], loc[1:])
    return int(node.start_mark.line) + 1


def shipped_specs() -> dict[str, Path]:
    """The data specs that come with Tandem: name -> file."""
    return {path.stem: path for path in sorted(shipped("data_specs").glob("*.yaml"))}


def find_spec(spec: str | Path) -> Path:
    """The file of a data spec.

    Args:
        spec: a path, or the name of a shipped one, such as `ct_mr_head`.

    Raises:
        UsageError: E_SPEC when it is neither.
    """
    known = shipped_specs()
    if Path(spec).is_file():
        return Path(spec)
    if str(spec) in known:
        return known[str(spec)]
    what = f"Expected a data spec, got {spec}, which is neither a file nor the name of a shipped one"
    remedy = f"Give a path, or one of {', '.join(known)}: `tandem specs` says what they are for."
    raise UsageError("E_SPEC", what + (did_you_mean(Path(spec).stem, known) or "."), remedy)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest of the known names; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
