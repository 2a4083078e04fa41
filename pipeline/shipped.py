"""Where the files that come with Tandem lie, in the checkout or in the installed package, and which code this is."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from pipeline import __version__

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_share"
_SOURCES = (".py", ".html", ".css", ".txt")


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, such as `shipped("bundles", "ingest")`."""
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent).joinpath(*parts)


def bundle_root(name: str) -> str:
    """The folder of a shipped bundle, as MONAI's configurations take it: found from any working folder."""
    return str(shipped("bundles", name))


def shipped_model(bundle: str, name: str, *folders: Path) -> str:
    """The path of a file that a data spec names: the name itself, or that of a file that a bundle's `models` holds.

    Args:
        bundle: whose.
        name: a path, or a file's name alone.
        folders: where a name alone is looked for, too.
    """
    places = [] if "/" in name else [shipped("bundles", bundle, "models"), *folders]
    return next((str(folder / name) for folder in places if name and (folder / name).is_file()), name)


@cache
def code_version() -> str:
    """Tandem's version; in a checkout, which can be edited, with a digest of its sources: edited code is new work."""
    if _INSTALLED.is_dir():
        return __version__
    digest = hashlib.sha256()
    for path in sorted(path for path in _PACKAGE.rglob("*") if path.suffix in _SOURCES):
        name = path.relative_to(_PACKAGE).as_posix()
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return f"{__version__}{'.' if '+' in __version__ else '+'}{digest.hexdigest()[:12]}"
