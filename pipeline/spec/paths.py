"""Patterns of paths that say which files play a role, and which part of a path is the case. No heavy imports."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from pathlib import Path

#: What stands for a name: `{case}` for the patient, `{session}` for one of a patient's visits.
PLACEHOLDERS = ("case", "session")
_TOKEN = re.compile(r"\{[^{}]*\}|\*\*/|\*|\?|[^*?{]+|.", re.DOTALL)
_WILDCARDS = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern such as `sub-{case}/anat/*_T1w.nii.gz` into a regular expression for relative POSIX paths.

    `*` stands for any characters but `/`, `?` for one of them, `**/` for any number of folders. A placeholder stands
    for at least one character but `/`, as few as fit; where it stands again, it is the same text. Names are compared
    in the form NFC of Unicode (`name_below`): macOS writes `ü` as two characters, others as one.

    Returns:
        An expression with a group for each placeholder; use `fullmatch`.

    Raises:
        ValueError: when the pattern cannot say which part of a path is the case.
    """
    tokens = _TOKEN.findall(unicodedata.normalize("NFC", pattern))
    _check(pattern, tokens)
    seen: set[str] = set()
    parts = []
    for token in tokens:
        name = token.strip("{}")
        if token.startswith("{"):
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
        else:
            parts.append(_WILDCARDS.get(token) or re.escape(token))
    return re.compile("".join(parts))


def name_below(root: Path, path: Path) -> str:
    """What a pattern is compared with: the path of a file below a folder, with `/`, in the form NFC of Unicode."""
    return unicodedata.normalize("NFC", path.relative_to(root).as_posix())


def placeholders(pattern: str) -> frozenset[str]:
    """The placeholders that a pattern has."""
    return frozenset(compile_pattern(pattern).groupindex)


def owner(found: re.Match[str]) -> tuple[str, ...]:
    """Whose a path is: what stands for `{case}`, and for `{session}` where the pattern has it."""
    return tuple(text for _, text in sorted(found.groupdict().items()))


def _check(pattern: str, tokens: list[str]) -> None:
    if pattern.startswith("/") or ".." in pattern.split("/") or "\\" in pattern:
        raise ValueError("`files` is a path below the input folder, with / between folders")
    unknown = [token for token in tokens if token.startswith("{") and token.strip("{}") not in PLACEHOLDERS]
    if unknown:
        raise ValueError(f"`files` knows {{case}} and {{session}}, not {unknown[0]}")
    if "{case}" not in tokens:
        raise ValueError("`files` needs {case} where the path has the case's name")
    if re.search(r"\*\*(?!/)|[^/]\*\*", pattern):
        raise ValueError("`files` has ** inside a name: write **/ for any number of folders, * for a part of a name")
    for before, after in pairwise(tokens):
        if before[-1] in "}*?" and after[0] in "{*?" and "{" in (before[0], after[0]):
            raise ValueError(f"`files` has {before}{after}: nothing says where the one ends and the other begins")
