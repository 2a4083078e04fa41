"""What a report says of streams beside its variants: controls, what shuffling takes away, and how to read both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.comparison.classification import Beside, Compared, logits_of_seeds, mean_predictions
from pipeline.comparison.stream_controls import ControlFindings
from pipeline.comparison.streams import notes_of
from pipeline.comparison.trials import Protocol, Variant
from pipeline.evaluation.classification import compare, evaluate
from pipeline.evaluation.results import ALL, MACRO, Comparison, Estimate, Evaluation, Predictions, Settings
from pipeline.learning.table import Row
from pipeline.report.classification import interval, number, p_text
from pipeline.report.paper import PlainTable

#: A stream, and how it was shuffled.
Shuffle = tuple[str, Literal["within", "across"]]
PLAIN = "not shuffled"
_WAYS = {"within": "within the class", "across": "across classes"}
#: Printed in the place of a winner.
NO_WINNER = (
    "N_CLASS_PAIRED: the cases of this table were made of one class's files and are no patients. Their streams are "
    "independent given the class, and Bayes' rule is late fusion: the streams' log-posteriors summed, less (M - 1) log "
    "priors. No strategy of fusion can beat it on such cases, whatever it finds in real patients: no winner is named."
)
#: AUROC of chance.
CHANCE = 0.5


def auroc_of(found: Evaluation) -> Estimate:
    """AUROC with its bootstrap interval: of class 1 of two, of more the macro average."""
    area = [item for item in found.estimates if item.measure == "auroc" and not item.method.startswith("DeLong")]
    return next((item for item in area if item.of == MACRO), area[0])


def controls_table(found: ControlFindings) -> PlainTable:
    """The controls on folds of patients, and beside them on folds drawn case by case."""
    rows = [_control(item, "by patient") for item in found.by_patient]
    rows += [_control(item, "case by case") for item in found.random]
    note = (
        "Logistic regression out of fold, its penalty chosen by training cases alone; 95 % intervals over resampled "
        "patients. File facts: size in bytes, type, sides, voxels, duration, loudness, and what the table tells. "
        "Frame: the outer 16 of 224 pixels. Thumbnail: 16 x 16."
    )
    return PlainTable("Controls that see no disease", ("Control", "Folds", "AUROC", "Accuracy"), tuple(rows), note)


def shuffle_table(
    plain: Predictions, shuffled: Mapping[Shuffle, Predictions], settings: Settings | None = None
) -> PlainTable:
    """What a trained network loses when one stream of its judged cases is another patient's.

    Args:
        plain: of the judged cases as they are.
        shuffled: (stream, way) -> of the same cases with that stream shuffled.
        settings: of the intervals and tests.

    Raises:
        UsageError: E_ROWS when the cases are others.
    """
    names = {f"{stream}, {_WAYS[way]}": found for (stream, way), found in shuffled.items()}
    models = {PLAIN: plain, **names}
    losses = {item.second: item for item in compare(models, settings) if item.first == PLAIN and _is_summary(item)}
    rows = [
        (item.model, _valued(auroc_of(item)), *_loss(losses.get(item.model))) for item in evaluate(models, settings)
    ]
    note = (
        "Loss: AUROC not shuffled less AUROC shuffled, paired over the same resampled patients. Within the class a "
        "stream still tells all that it alone tells of the class: what then does not fall has used no patient."
    )
    columns = ("Streams of the judged cases", "AUROC", "Loss", "95 % interval", "p")
    return PlainTable("Streams of other patients", columns, tuple(rows), note)


def control_sentences(
    found: ControlFindings, reached: float | None = None, class_paired: bool = False
) -> tuple[str, ...]:
    """How the controls are to be read.

    Args:
        found: what they have found.
        reached: AUROC of the best network on the same folds, as `auroc_of` takes it, where there is one.
        class_paired: whether the cases were made of one class's files.
    """
    said = [NO_WINNER] if class_paired else []
    said += [_explained(item, reached) for item in found.by_patient if auroc_of(item).value is not None]
    pairs = zip(found.by_patient, found.random, strict=False)
    return (*said, *(_flattered(patient.model, auroc_of(patient), auroc_of(drawn)) for patient, drawn in pairs))


def _control(found: Evaluation, folds: str) -> tuple[str, ...]:
    return (found.model, folds, _valued(auroc_of(found)), _valued(found.estimate("accuracy", ALL)))


def _valued(item: Estimate) -> str:
    if item.value is None:
        return item.note
    return number(item.value) if item.low is None else f"{number(item.value)} ({interval(item.low, item.high)})"


def _loss(item: Comparison | None) -> Sequence[str]:
    if item is None:
        return ("", "", "")
    return (number(item.difference, signed=True), interval(item.low, item.high), p_text(item.p_value))


def _is_summary(item: Comparison) -> bool:
    return item.measure == "auroc" and item.method != "DeLong"


def _explained(control: Evaluation, reached: float | None) -> str:
    area = auroc_of(control).value or 0.0
    said = f"{control.model} alone: AUROC {number(area)}"
    if reached is None or reached <= CHANCE:
        return f"{said}."
    if area >= reached:
        return f"{said}, as much as the best network ({number(reached)}) or more: it has to be beaten first."
    if area <= CHANCE:
        return f"{said}, no better than chance; the best network has {number(reached)}."
    part = (area - CHANCE) / (reached - CHANCE)
    return f"{said}, which is {part:.0%} of what the best network has above chance ({number(reached)})."


def _flattered(name: str, patient: Estimate, drawn: Estimate) -> str:
    return f"{name} on folds drawn case by case: AUROC {number(drawn.value)}; by patient {number(patient.value)}."


# ---- what stands beside a comparison ---------------------------------------------------------------------------------

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
