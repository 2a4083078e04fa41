"""What stands beside a comparison of streams: controls, what streams of other patients cost, how cases were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.comparison.classification import Beside, Compared, logits_of_seeds, mean_predictions
from pipeline.comparison.stream_controls import ControlFindings
from pipeline.comparison.stream_report import Shuffle, control_sentences, controls_table, shuffle_table
from pipeline.comparison.streams import notes_of
from pipeline.comparison.trials import Protocol, Variant
from pipeline.learning.table import Row
from pipeline.report.paper import PlainTable

FEW = (
    "Streams were not shuffled within the class: a fold has one patient alone of a class, whose streams no other one "
    "could take."
)

#: Keys of `evaluate.yaml`.
_SHUFFLED, _WITHIN = "shuffled_modalities", "shuffle_within_class"


@dataclass(frozen=True)
class Around:
    """What a comparison of streams is made of.

    Attributes:
        protocol, variants, seeds, folds: of its trials.
        controls: what they have found on the same cases and folds.
        class_paired: whether the cases were made of one class's files.
    """

    protocol: Protocol
    variants: Sequence[Variant]
    seeds: Sequence[int]
    folds: Sequence[int]
    controls: ControlFindings
    class_paired: bool

    def beside(self, found: Sequence[Compared]) -> Beside:
        """Sentences and tables for the report; of the variants that are done."""
        done = {item.name: item for item in found}
        shuffled = [item for item in self.variants if item.judgements and item.name in done]
        tables = [self._shuffled(item, done[item.name]) for item in shuffled]
        within = any(how[_WITHIN] for item in shuffled for how in item.judgements.values())
        said = control_sentences(self.controls, max(item.auroc_of_mean for item in found), self.class_paired)
        few = (FEW,) if shuffled and not within else ()
        return Beside((*said, *few), (controls_table(self.controls), *tables), tuple(notes_of(self.variants)))

    def _shuffled(self, variant: Variant, found: Compared) -> PlainTable:
        of = (self.protocol, variant, self.seeds, self.folds)
        seeds = {_shuffle(how): logits_of_seeds(*of, name) for name, how in variant.judgements.items()}
        judged = {how: mean_predictions(variant.name, logits) for how, logits in seeds.items()}
        table = shuffle_table(mean_predictions(found.name, found.seeds), judged)
        return replace(table, heading=f"{table.heading}: {variant.name}")


def shuffled_judgements(rows: Sequence[Row], streams: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Judgements of a trial with one stream of every case taken from another patient: name -> keys of `evaluate.yaml`.

    Args:
        rows: with folds; within the class only where every fold has two patients or more of each class.
        streams: their names; none of one stream alone, which then tells of the other patient and of nobody else.
    """
    if len(streams) < 2:
        return {}
    ways = ("within", "across") if _enough(rows) else ("across",)
    return {f"{way}-{name}": {_SHUFFLED: [name], _WITHIN: way == "within"} for name in streams for way in ways}


def with_judgements(variants: Sequence[Variant], judgements: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
    """The variants that see several streams are judged by these, too."""
    return [item if len(item.settings["modalities"]) < 2 else replace(item, judgements=judgements) for item in variants]


def _enough(rows: Sequence[Row]) -> bool:
    """Evaluation shuffles the cases that are judged, and those that were learned from, each among themselves."""
    patients = {(row.fold, row.label, row.patient_id) for row in rows}
    return min(Counter((fold, label) for fold, label, _ in patients).values()) >= 2


def _shuffle(how: Mapping[str, Any]) -> Shuffle:
    return how[_SHUFFLED][0], "within" if how[_WITHIN] else "across"
