"""What makes commands start sooner: packages that MONAI loads and no command needs, and the search for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

#: Nearly half the time of MONAI's import. Trainings need ignite: they run in processes of their own, or say so
#: (`spare_nothing`). Reports load matplotlib themselves, when they draw; folds load scikit-learn. SciPy's signals serve
#: maps of ultrasound and filters of signals, and bring its statistics.
PACKAGES = ("torchvision", "ignite", "matplotlib", "sklearn", "h5py", "huggingface_hub", "scipy.signal")
#: Of thousands of modules, whose objects stay: to look for garbage among them takes a sixth of the time.
LARGE = ("torch", "monai")


class _Sparing(MetaPathFinder):
    """Says that packages are not there for as long as MONAI itself is being loaded, and then no more."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing, no such module, or a large one that is loaded without collecting garbage."""
        if fullname in PACKAGES and _is_loading("monai"):
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)
        return _uncollected(PathFinder.find_spec(fullname, path, target)) if fullname in LARGE else None


def spare() -> None:
    """From now on MONAI is loaded without them. For programs that only predict: MONAI's engines stay unusable."""
    if not any(isinstance(finder, _Sparing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sparing())


def spare_nothing() -> None:
    """Take `spare` back, for a command that trains; before anything has loaded MONAI."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Sparing)]


def _is_loading(name: str) -> bool:
    """Whether a package is being imported: it is known, and its module is not yet complete."""
    module = sys.modules.get(name)
    return module is not None and bool(getattr(module.__spec__, "_initializing", False))


def _uncollected(spec: ModuleSpec | None) -> ModuleSpec | None:
    """A package that is loaded without a search for garbage; what it holds is not searched later either."""
    if spec is None or spec.loader is None:
        return spec
    load = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        collecting = gc.isenabled()
        gc.disable()
        try:
            load(module)
        finally:
            if collecting:
                gc.enable()
                gc.freeze()

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec
