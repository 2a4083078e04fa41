"""Where the files that come with Tandem lie: in the checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, such as `shipped("bundles", "ingest")`."""
    installed = _PACKAGE / "_share"
    return (installed if installed.is_dir() else _PACKAGE.parent).joinpath(*parts)
