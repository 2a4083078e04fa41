"""Packages that MONAI loads where they are installed, and that no command needs: a command starts sooner without."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: A third of the time of MONAI's import. Trainings need ignite: they run in processes of their own, or say so
#: (`spare_nothing`). Reports load matplotlib themselves, when they draw; folds load scikit-learn.
PACKAGES = ("torchvision", "ignite", "matplotlib", "sklearn", "h5py", "huggingface_hub")


class _Absent(MetaPathFinder):
    """Says that the packages are not there for as long as MONAI itself is being loaded, and then no more."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing, or no such module."""
        if fullname in PACKAGES and _is_loading("monai"):
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)
        return None


def spare() -> None:
    """From now on MONAI is loaded without them. For programs that only predict: MONAI's engines stay unusable."""
    if not any(isinstance(finder, _Absent) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Absent())


def spare_nothing() -> None:
    """Take `spare` back, for a command that trains; before anything has loaded MONAI."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Absent)]


def _is_loading(name: str) -> bool:
    """Whether a package is being imported: it is known, and its module is not yet complete."""
    module = sys.modules.get(name)
    return module is not None and bool(getattr(module.__spec__, "_initializing", False))
