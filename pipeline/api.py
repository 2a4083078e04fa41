"""The commands as functions, for Python: `from pipeline import api`; docs/reference/python-api.md.

Each takes paths as texts or `Path`, and options by the names of its command's; gives typed results; raises `UsageError`
where the command would end with exit code 2; and prints nothing unless asked to. A function is imported when it is
first used, so that `from pipeline import api` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.commands.bids import export_bids
    from pipeline.commands.calibrate import apply_calibration, calibrate
    from pipeline.commands.cohort import clean, cohort, retry, verify
    from pipeline.commands.convert import convert_back, convert_nnunet
    from pipeline.commands.deidentify import deidentify
    from pipeline.commands.evaluate import evaluate_classification
    from pipeline.commands.evaluate_segmentation import evaluate_segmentation
    from pipeline.commands.fuse_image import fuse_image
    from pipeline.commands.radiomics import radiomics
    from pipeline.commands.register import register
    from pipeline.commands.run import ingest, run, status, watch
    from pipeline.commands.segment import segment
    from pipeline.commands.series import draft_spec, series
    from pipeline.commands.table import table
    from pipeline.commands.typed import specs
    from pipeline.comparison.cohort import compare

# fmt: off
__all__ = [
    "apply_calibration", "calibrate", "clean", "cohort", "compare", "convert_back", "convert_nnunet", "deidentify",
    "draft_spec", "evaluate_classification", "evaluate_segmentation", "export_bids", "fuse_image", "ingest",
    "radiomics", "register", "retry", "run", "segment", "series", "specs", "status", "table", "verify", "watch",
]
# fmt: on
#: Where a function is, other than in the module of `pipeline.commands` of its own name.
_HOMES = {
    **{"apply_calibration": "commands.calibrate", "evaluate_classification": "commands.evaluate"},
    **{"draft_spec": "commands.series", "compare": "comparison.cohort", "specs": "commands.typed"},
    **{"export_bids": "commands.bids"},
    **dict.fromkeys(("clean", "retry", "verify"), "commands.cohort"),
    **dict.fromkeys(("convert_back", "convert_nnunet"), "commands.convert"),
    **dict.fromkeys(("ingest", "run", "status", "watch"), "commands.run"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"pipeline.{_HOMES.get(name, f'commands.{name}')}"), name)
