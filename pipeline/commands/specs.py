"""`tandem specs`: the data specs that come with Tandem."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from pipeline.console import print_table
from pipeline.spec.names import find_spec, shipped_specs
from pipeline.spec.spec import Spec, load_spec


def specs() -> dict[str, Spec]:
    """The data specs that come with Tandem, by name: `tandem specs`."""
    return {name: load_spec(path) for name, path in shipped_specs().items()}


def text_of(name: str) -> str:
    """The YAML of a data spec.

    Raises:
        UsageError: E_SPEC when there is no spec of this name.
    """
    return find_spec(name).read_text(encoding="utf-8")


def show(found: Mapping[str, Spec]) -> None:
    """Print one row a spec: its roles with their modalities, what its stages do, and what it is for."""
    table = Table("name", "roles", "sections", "description", box=None, header_style="bold")
    for name, spec in found.items():
        roles = ", ".join(f"{role} ({modality})" for role, modality in spec.modalities.items())
        table.add_row(name, roles, ", ".join(sections(spec)), spec.description)
    print_table(table)


def sections(spec: Spec) -> list[str]:
    """Which of the sections that a spec may do without it has: `masks`, `register`, `fuse`."""
    there = {"masks": bool(spec.masks), "register": spec.register_ is not None, "fuse": spec.fuse is not None}
    return [name for name, given in there.items() if given]
