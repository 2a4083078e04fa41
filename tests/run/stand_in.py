"""Stages of one line in the place of bundles, for tests of what goes on around stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.run import batch, flow
from pipeline.run.loading import Loaded
from pipeline.run.plan import Plan

Load = Callable[[str, Plan], Loaded]


@dataclass(frozen=True)
class Cases:
    """Finds cases of these names, which have nothing else."""

    names: tuple[str, ...]

    def __call__(self) -> list[dict[str, Any]]:
        return [{"case_id": name} for name in self.names]

    def of(self, case_id: str) -> dict[str, Any]:
        return {"case_id": case_id}


def put_in_place(load: Load, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let a run take its stages from `load`, and not from bundles.

    Args:
        load: gives a stage by its name.
        put: how it is put there: `monkeypatch.setattr` takes it back.
    """

    def part(parser: dict[str, Any], name: str, *otherwise: Any) -> Any:
        return load(parser["name"], parser["plan"]).find_cases if name == "cases" else otherwise[0]

    put(flow, "load", load)
    put(batch, "parser_of", lambda name, plan: {"name": name, "plan": plan})
    put(batch, "part_of", part)
