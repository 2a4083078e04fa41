"""Where the files that come with Tandem lie: in the checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, such as `shipped("bundles", "ingest")`."""
    installed = _PACKAGE / "_share"
    return (installed if installed.is_dir() else _PACKAGE.parent).joinpath(*parts)


def bundle_root(name: str) -> str:
    """The folder of a shipped bundle, as MONAI's configurations take it: found from any working folder."""
    return str(shipped("bundles", name))
