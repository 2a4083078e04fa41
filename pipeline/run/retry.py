"""What of a run failed or was quarantined, and the plan that does it, and what comes after it, again. Nothing heavy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.errors import REMEDIES, UsageError
from pipeline.run.plan import STAGES, Plan
from pipeline.run.status import Cases, of_folder
from pipeline.shipped import shipped
from pipeline.spec.explain import did_you_mean
from pipeline.spec.spec import SPEC_FILE
from pipeline.store import records


@dataclass(frozen=True)
class Retry:
    """What is done again.

    Attributes:
        cases: their ids.
        stages: from the first that did not go well, in their order.
        codes: code -> in how many cases.
        first: stage -> how many of the cases it is where the case stopped.
    """

    cases: frozenset[str]
    stages: tuple[str, ...]
    codes: Counter[str]
    first: Counter[str]

    def plan(self, output_dir: Path, root: Path | None, **options: Any) -> Plan:
        """How it is run, with the data spec that the run folder keeps; `options` are other fields of the plan.

        Raises:
            UsageError: E_OPTION when ingest is to be done again, and nobody says where the input is; E_NO_STAGE.
        """
        ingested = self.first[STAGES[0]]
        if ingested and root is None:
            what = (
                f"Expected the input folder, for ingest of {ingested} cases again, got none: a run keeps no path of it."
            )
            raise UsageError("E_OPTION", what, "Give it as --input ROOT, or name the stages to retry with --stage.")
        spec = output_dir / SPEC_FILE if (output_dir / SPEC_FILE).is_file() else None
        return Plan(root or output_dir, output_dir, spec, self.stages, cases=self.cases, **options)


def find(output_dir: Path, codes: Sequence[str] = (), cases: Sequence[str] = (), stages: Sequence[str] = ()) -> Retry:
    """Find what failed or was quarantined, and what of the run comes after it.

    Args:
        output_dir: the run folder.
        codes: only these; empty: all but `E_WITHDRAWN`.
        cases: only these; empty: all.
        stages: only what stopped in these; empty: all.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run, E_OPTION for a code, a case or a stage that there is not.
    """
    found = of_folder(output_dir)
    known = _stages_of(output_dir, found)
    for kind, given, there in (("code", codes, REMEDIES), ("case", cases, found), ("stage", stages, known)):
        for name in given:
            if name not in there:
                near = did_you_mean(name, there) or "."
                raise UsageError(
                    "E_OPTION", f"Expected a {kind} that there is, got {name}{near}", _SEE.format(output_dir)
                )
    stopped = [
        record
        for case_id, done in found.items()
        if not cases or case_id in cases
        for record in done
        if _is_asked_for(record, codes, stages)
    ]
    first = {record.case_id: record for record in reversed(stopped)}
    where = Counter(record.stage for record in first.values())
    start = min((known.index(name) for name in where), default=len(known))
    named = Counter(record.error.code for record in stopped if record.error)
    return Retry(frozenset(first), tuple(known[start:]), named, where)


_SEE = "`tandem status {} --cases` shows what there is."


def _is_asked_for(record: Record, codes: Sequence[str], stages: Sequence[str]) -> bool:
    code = record.error.code if record.error else ""
    return (
        record.status != "done"
        and (code in codes if codes else code != records.WITHDRAWN)
        and (not stages or record.stage in stages)
    )


def _stages_of(output_dir: Path, found: Cases) -> list[str]:
    """The stages of a run in their order: those of its manifest, and those that have left a record.

    A stage whose bundle is not one of Tandem's runs by a command of its own, and is left to it.
    """
    ran = records.stages_in_order(found)
    manifest = output_dir / "run.json"
    told = json.loads(manifest.read_text(encoding="utf-8"))["stages"] if manifest.is_file() else []
    both = {*ran, *told}
    others = [name for name in ran if name not in STAGES and shipped("bundles", name).is_dir()]
    last = [STAGES[-1]] if STAGES[-1] in both else []
    return [*(name for name in STAGES[:-1] if name in both), *others, *last]
