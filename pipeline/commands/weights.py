"""`tandem weights add|list|verify|remove`: the models of nnU-Net on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from pipeline.console import echo, print_table
from pipeline.errors import UsageError
from pipeline.segmentation.weights import Model, add, installed, names, remove, verify

__all__ = ["add", "installed", "remove", "show", "verify", "verify_all"]


def show(models: Sequence[Model]) -> None:
    """Print one row a model."""
    table = Table("name", "channels", "labels", "folds", "MB", box=None, header_style="bold")
    for model in models:
        parts = (", ".join(of) for of in (model.channels, model.labels, model.folds))
        table.add_row(model.name, *parts, f"{model.size / 1e6:.1f}")
    print_table(table)


def verify_all(name: str = "") -> int:
    """Compare one model, or all, with the manifest, and say so; the exit code.

    Raises:
        UsageError: E_WEIGHTS for a name that is not installed, or one model that was asked for and is not whole.
    """
    if name:
        verify(name)
        echo(f"{name}: whole")
        return 0
    broken = 0
    for one in names():
        try:
            verify(one)
            echo(f"{one}: whole")
        except UsageError as error:
            broken += 1
            echo(f"{one}: {error}", error=True)
    return int(broken > 0)
