"""Data specs by name, and what a misspelt name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.shipped import shipped


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
