"""What a stage says survives the way to the disk and back."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.run.stage import Stage
from pipeline.store.sections import (
    Answer,
    Coloured,
    Display,
    Panel,
    Picture,
    Regions,
    Section,
    Sections,
    Table,
    joined,
)

COLOURED = Coloured("p", 1, 0.5, "probability", True, True, {1: "lesion"})
PICTURE = Picture(
    "mr_after", "After", "Edges run on.", (Panel("MR", "ct", 0, (0.0, 2.5), "mr", "pet", COLOURED),), "p", "mr", 3
)
SAID = Sections(
    (Section("Alignment", ("It passed.",), (Table("", ("a", "b"), (("1", "2"),), {"1": "one"}),), (PICTURE,)),),
    (Answer("Class", "b", "calibrated"),),
    (Display("ct", "CT", "HU", (-160.0, 240.0)), Display("mr", "MR")),
    (Regions("gtv", ("ct",), {1: "tumour"}),),
)


def test_the_way_to_the_disk_and_back() -> None:
    assert Sections.from_json(json.loads(json.dumps(SAID.as_json()))) == SAID


def test_nothing_said_is_nothing() -> None:
    assert not Sections() and not joined([Sections(), Sections()]) and joined([SAID, Sections()]) == SAID


class Says:
    def __call__(self, case: dict) -> dict:
        return dict(case)

    def sections(self, case: dict) -> Sections:
        return Sections(answers=(Answer("Case", case["case_id"]),))


class Chain:
    def __init__(self, *transforms: object) -> None:
        self.transforms = transforms

    def __call__(self, case: dict) -> dict:
        return dict(case)


def test_a_stage_keeps_what_all_its_transforms_say(tmp_path: Path) -> None:
    """Chains in chains, too; the answers stand in the record."""
    record = Stage("toy", Chain(Says(), Chain(Says()), object()), {}, output_dir=tmp_path).run_case({"case_id": "one"})
    (artifact,) = record.artifacts
    stored = Sections.from_json(json.loads((tmp_path / artifact.path).read_text()))
    assert artifact.path == "cases/one/toy/sections.json"
    assert stored.answers == (Answer("Case", "one"), Answer("Case", "one"))
    assert record.answers == {"Case": "one"}
