"""Refuse what is wrong in a YAML file, and say so: its line, its key, and what the key may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.reader import ReaderError

from pipeline.errors import UsageError
from pipeline.shipped import shipped

T = TypeVar("T", bound=BaseModel)


class Model(BaseModel):
    """A part of a data spec: unknown keys are refused, and what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_model(path: Path, model: type[T], what: str, code: str, beside: Callable[[list[str]], list[str]]) -> T:
    """Read what a person wrote in YAML.

    Args:
        path: the file.
        model: what it has to be.
        what: the file in words, such as `data spec`.
        code: of the refusal.
        beside: gives the keys that are known at the place of an unknown one.

    Raises:
        UsageError: with the code; the message names the key and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "Check its permissions." if path.exists() else "Check the path."
        raise UsageError(code, f"The {what} {path} cannot be read ({error.strerror}).", remedy) from error
    except UnicodeDecodeError as error:
        raise _not_text(path, what, code) from error
    try:
        data, root = yaml.safe_load(text), yaml.compose(text)
        return model.model_validate(data)
    except ReaderError as error:  # such as UTF-16, in which every second byte is 0
        raise _not_text(path, what, code) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(code, f"{path}, line {line}: not valid YAML: {error.problem}.") from error
    except ValidationError as error:
        raise UsageError(code, " ".join(explain(path, root, item, beside) for item in error.errors())) from error


def _not_text(path: Path, what: str, code: str) -> UsageError:
    return UsageError(code, f"The {what} {path} is not UTF-8 text.", "Save it as UTF-8.")


def explain(path: Path, root: yaml.Node | None, error: Any, beside: Callable[[list[str]], list[str]]) -> str:
    """One validation error as `file, line n: key: what is wrong`, as a sentence.

    Args:
        path: the file.
        root: its parsed nodes, or None where it is empty.
        error: one of pydantic's `errors()`.
        beside: gives the keys that are known at the place of an unknown one.
    """
    where = [str(part) for part in error["loc"]]
    (line, node), key = _place_of(root, list(error["loc"])), ".".join(where) or "the spec"
    if error["type"] == "extra_forbidden":
        problem = f"unknown key{did_you_mean(where[-1], beside(where))}"
    elif error["type"] == "missing":
        problem = "this key is missing"
    elif error["type"] in ("model_type", "dict_type"):
        problem = f"must be keys with their values, got {_shown(error['input'])}"
    elif error["type"] == "value_error":
        problem = error["msg"].removeprefix("Value error, ")
        line = _line_of_names(node, re.findall(r"`([^`]+)`", problem), line)
    else:
        problem = f"{error['msg'].replace('Input should', 'must')}, got {_shown(error['input'])}"
        problem += did_you_mean(str(error["input"]), re.findall(r"'(\w+)'", error["msg"]))
    return f"{path}, line {line}: {key}: {problem}" + ("" if problem.endswith("?") else ".")


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:60]


def _line_of_names(node: yaml.Node | None, names: Iterable[str], line: int) -> int:
    """The line of the last of a message's names, down to the first that is no key; each is below the one before."""
    for name in ".".join(names).split("."):
        if found := next((pair for pair in _named(node) if pair[0].value == name), None):
            line, node = found[0].start_mark.line + 1, found[1]
    return line


def _named(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node | None]]:
    """Every key with what stands below it, and every other text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key, value
            yield from _named(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _named(item)
    elif node is not None:
        yield node, None


def _place_of(node: yaml.Node | None, loc: list[Any]) -> tuple[int, yaml.Node | None]:
    """The line of the deepest part of `loc` that is in the file, counted from 1, and what stands there."""
    if node is None:
        return 1, None
    if loc and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(loc[0]):
                line, below = _place_of(value, loc[1:])
                return key.start_mark.line + 1 if len(loc) == 1 else line, below
    if loc and isinstance(node, yaml.SequenceNode) and isinstance(loc[0], int) and loc[0] < len(node.value):
        return _place_of(node.value[loc[0]], loc[1:])
    return int(node.start_mark.line) + 1, node


def shipped_specs() -> dict[str, Path]:
    """The data specs that come with Tandem: name -> file."""
    return {path.stem: path for path in sorted(shipped("data_specs").glob("*.yaml"))}


def find_spec(spec: str | Path) -> Path:
    """The file of a data spec that is named by its path or, a shipped one, by its name, such as `ct_mr_head`.

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
