"""Compare variants of the fusion network: trials in; tables, tests, curves and one report out."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from pipeline.commands.evaluate import write_evaluation
from pipeline.comparison.trials import DONE, EVALUATION, Protocol, Trial, Variant, all_done, read_trial, trials_of
from pipeline.errors import UsageError
from pipeline.evaluation.intervals import delong
from pipeline.evaluation.results import MACRO, Comparison, Estimate, Evaluation, Predictions, Settings, predictions
from pipeline.report.classification import number
from pipeline.report.curves import Line, Panel
from pipeline.report.paper import PlainTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassLogits:
    """Class logits of cases that the networks have not learned from, each case once, by case id.

    Attributes:
        case_ids: N names.
        patient_ids: N names.
        labels: (N,) true classes.
        logits: (N, K).
    """

    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: Ints
    logits: Floats


def judged_folders(protocol: Protocol, trials: Sequence[Trial], judgement: str = EVALUATION) -> list[Path]:
    """The folders of a judgement.

    Raises:
        UsageError: E_NO_CASES when a trial is not done.
    """
    undone = [trial.name for trial in trials if read_trial(protocol, trial).get("status") != DONE]
    if undone or not trials:
        got = undone[0] if undone else "no trial"
        raise UsageError("E_NO_CASES", f"Expected trials that are done, got {got}.", "See its trial.json.")
    return [protocol.folder(trial) / judgement for trial in trials]


def class_logits(folders: Sequence[Path], transform: Callable[[Path, Floats], Floats] | None = None) -> ClassLogits:
    """Put the class logits of several folds together.

    Args:
        folders: of the folds' judgements.
        transform: makes of a folder and its logits (n, K) what is taken in their place, such as calibrated
            log-probabilities.

    Raises:
        UsageError: E_ROWS when a case comes twice; E_TABLE when there are no classes.
    """
    names: list[tuple[str, str]] = []
    logits, labels = [], []
    for folder in folders:
        found = load(folder / "class_logits.npy").astype(np.float64)
        logits.append(found if transform is None else transform(folder, found))
        labels.append(load(folder / "class_labels.npy").astype(np.int64))
        with (folder / "class_cases.csv").open(newline="", encoding="utf-8") as stream:
            names += [(row["case_id"], row["patient_id"]) for row in csv.DictReader(stream)]
    require_once([case for case, _ in names])
    order = np.argsort([case for case, _ in names], kind="stable")
    cases, patients = ([names[i][part] for i in order] for part in (0, 1))
    return ClassLogits(tuple(cases), tuple(patients), np.concatenate(labels)[order], np.concatenate(logits)[order])


def logits_of_seeds(
    protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int], judgement: str = EVALUATION
) -> tuple[ClassLogits, ...]:
    """The class logits of each seed's networks of a variant, the folds put together; of the protocol's cases alone.

    Raises:
        UsageError: E_NO_CASES when a trial is not done; as `class_logits`.
    """
    trials = [[Trial(variant, seed, fold) for fold in folds] for seed in seeds]
    found = (class_logits(judged_folders(protocol, some, judgement)) for some in trials)
    return tuple(_among(one, protocol.among) if protocol.among else one for one in found)


def _among(found: ClassLogits, names: frozenset[str]) -> ClassLogits:
    rows = [at for at, name in enumerate(found.case_ids) if name in names]
    cases, patients = ([part[at] for at in rows] for part in (found.case_ids, found.patient_ids))
    return ClassLogits(tuple(cases), tuple(patients), found.labels[rows], found.logits[rows])


def curve_rows(protocol: Protocol, trial: Trial) -> list[dict[str, float]]:
    """The curves of a training: epoch, training_loss, validation_loss, learning_rate, seconds.

    Raises:
        UsageError: E_TABLE.
    """
    with _there(protocol.folder(trial) / "curves.csv").open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def load(path: Path) -> npt.NDArray[Any]:
    """An array of an evaluation; E_TABLE (UsageError) when it is not there."""
    return np.asarray(np.load(_there(path), allow_pickle=False))


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UsageError("E_TABLE", f"Expected {path.name} of an evaluation in {path.parent}, got none.")
    return path


def require_once(names: Sequence[str]) -> None:
    """Refuse a case that comes twice: E_ROWS (UsageError)."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError("E_ROWS", f"Expected every case in one fold, got {twice} twice.")


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds: mean and sample standard deviation (None of one seed)."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return number(self.mean) if self.deviation is None else f"{number(self.mean)} ± {number(self.deviation)}"


@dataclass(frozen=True, eq=False)
class Compared:
    """One variant.

    Attributes:
        name: of the variant.
        seeds: class logits of each seed's networks, the folds put together.
        auroc: over the seeds; of more classes than two the macro average.
        parameters: of one network.
        flops: of one patch.
        seconds: of one training, processor time.
    """

    name: str
    seeds: tuple[ClassLogits, ...]
    auroc: Spread
    parameters: int
    flops: int
    seconds: float

    @property
    def mean_probabilities(self) -> Floats:
        """(N, K), the mean over the seeds' networks."""
        return _mean_chances(self.seeds)

    @property
    def auroc_of_mean(self) -> float:
        """Of the mean probabilities; of more classes than two the macro average."""
        return _area(self.mean_probabilities, self.seeds[0].labels)


@dataclass(frozen=True)
class Beside:
    """What a report says beside its variants: sentences under its heading, tables, and sentences on methods."""

    said: tuple[str, ...] = ()
    tables: tuple[PlainTable, ...] = ()
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Findings:
    """What a comparison has found.

    Attributes:
        variants: those that are done.
        evaluations: measures of the seeds' mean probability.
        comparisons: tests of them.
        said: sentences that stand beside the figures.
        left_out: names of variants with a trial that has failed, or is not done.
    """

    variants: tuple[Compared, ...]
    evaluations: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    said: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def variant(self, name: str) -> Compared:
        """The variant of a name."""
        return next(found for found in self.variants if found.name == name)

    def auroc(self, name: str) -> Estimate:
        """AUROC of the mean probability, of more classes than two the macro average.

        With DeLong's interval where there are two classes and one case a patient, else with the bootstrap's.
        """
        found = next(item for item in self.evaluations if item.model == name)
        ranked = [item for item in found.estimates if item.measure == "auroc" and item.value is not None]
        macro = [item for item in ranked if item.of == MACRO]
        by_delong = [item for item in ranked if item.method.startswith("DeLong")]
        return (macro or by_delong or ranked)[0]

    def difference(self, first: str, second: str) -> Comparison | None:
        """The paired bootstrap of two variants' AUROC, first less second; None where they were not compared."""
        for item in self.comparisons:
            if item.measure != "auroc" or item.method == "DeLong":
                continue
            if (item.first, item.second) == (first, second):
                return item
            if (item.second, item.first) == (first, second):
                return _turned(item)
        return None


def compare_variants(  # noqa: PLR0913 - a protocol, what is put together of it, and how it is said
    protocol: Protocol,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    folds: Sequence[int],
    out: Path,
    judgement: str = EVALUATION,
    settings: Settings | None = None,
    beside: Callable[[Sequence[Compared]], Beside] | None = None,
    class_names: Sequence[str] = (),
) -> Findings:
    """Compare the classes that variants have found, and write the report.

    Variants with a trial that is not done are left out, and the report says so. The intervals and tests are of the mean
    probability of the seeds' networks; the spread is of single networks.

    Args:
        protocol: of the trials.
        variants: to compare, in the order of the report.
        seeds: of the trials.
        folds: likewise; their cases are put together.
        out: the folder of the report.
        judgement: which judgement's cases.
        settings: of the bootstrap.
        beside: makes of the variants that are done what else is to be said.
        class_names: one a class; `class 0` … when empty.

    Raises:
        UsageError: E_NO_CASES when no variant is done; E_ROWS when variants were judged by other cases; E_OUT.
    """
    whole = [item for item in variants if all_done(protocol, item, seeds, folds)]
    if not whole:
        raise UsageError("E_NO_CASES", "Expected a variant whose trials are all done, got none.", "See trial.json.")
    found = tuple(_compared(protocol, item, seeds, folds, judgement) for item in whole)
    more = Beside() if beside is None else beside(found)
    left_out = tuple(item.name for item in variants if item not in whole)
    missing = f"Left out, because a training has failed or is not done: {', '.join(left_out)}."
    raw = [item.name for item in whole if not _all_calibrated(protocol, item, seeds, folds)]
    bare = f"No calibration could be fitted to some networks of: {', '.join(raw)}; their trial.json says why."
    said = (*([missing] if left_out else []), *more.said, *([bare] if raw else []))
    evaluations, comparisons = write_evaluation(
        {item.name: mean_predictions(item.name, item.seeds, class_names) for item in found},
        out,
        settings or Settings(),
        [_loss_panel(protocol, item, seeds, folds) for item in whole],
        [costs_table(found), *more.tables],
        [_sentence(seeds, folds), *more.methods],
        said,
    )
    return Findings(found, evaluations, comparisons, said, left_out)


def _all_calibrated(protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int]) -> bool:
    return all(record.get("calibration", DONE) == DONE for record in _records(protocol, variant, seeds, folds))


def _records(protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int]) -> list[dict[str, Any]]:
    return [read_trial(protocol, trial) for trial in trials_of([variant], seeds, folds)]


def auroc_of(found: ClassLogits) -> float:
    """AUROC of one network: of class 1 of two; of more, the mean over the classes that some case has."""
    return _area(softmax(found.logits, 1), found.labels)


def _area(chances: Floats, labels: Ints) -> float:
    scored = [1] if chances.shape[1] == 2 else range(chances.shape[1])
    kinds = [(chances[:, index], labels == index) for index in scored]
    areas = [delong(scores, hit).values[0] for scores, hit in kinds if 0 < hit.sum() < len(hit)]
    return float(np.mean(areas)) if areas else float("nan")


def costs_table(found: Sequence[Compared]) -> PlainTable:
    """AUROC over the seeds, and what each variant costs."""
    rows = [
        (item.name, str(item.auroc), f"{item.parameters:,}", f"{item.flops / 1e6:,.0f}", f"{item.seconds:.0f}")
        for item in found
    ]
    columns = ("Variant", "AUROC of one network", "Parameters", "MFLOP a patch", "Seconds of training")
    note = "AUROC: mean ± standard deviation over the seeds. Seconds of processor time, of one training."
    return PlainTable("Networks", columns, tuple(rows), note)


def _compared(
    protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int], judgement: str
) -> Compared:
    logits = logits_of_seeds(protocol, variant, seeds, folds, judgement)
    records = _records(protocol, variant, seeds, folds)
    return Compared(
        variant.name,
        logits,
        spread([auroc_of(one) for one in logits]),
        int(records[0]["parameters"]),
        int(records[0]["flops"]),
        float(np.mean([record["seconds"]["training"] for record in records])),
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _turned(found: Comparison) -> Comparison:
    """The same comparison with the models the other way round."""
    value, low, high = (None if end is None else -end for end in (found.difference, found.high, found.low))
    return replace(found, first=found.second, second=found.first, difference=value, low=low, high=high)


def _mean_chances(seeds: Sequence[ClassLogits]) -> Floats:
    return np.asarray(np.mean([softmax(seed.logits, 1) for seed in seeds], 0))


def mean_predictions(name: str, seeds: Sequence[ClassLogits], class_names: Sequence[str] = ()) -> Predictions:
    """The mean probabilities of a variant's seeds.

    Raises:
        UsageError: E_ROWS when a seed was judged by other cases.
    """
    first = seeds[0]
    for other in seeds[1:]:
        if other.case_ids != first.case_ids or not np.array_equal(other.labels, first.labels):
            raise UsageError("E_ROWS", f"Expected the same cases for every seed of {name}, got others.")
    chances = _mean_chances(seeds)
    return predictions(chances / chances.sum(1, keepdims=True), first.labels, first.patient_ids, class_names, name)


def _loss_panel(protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int]) -> Panel:
    """The mean curves over seeds and folds, and where all of them lie."""
    curves = [curve_rows(protocol, Trial(variant, seed, fold)) for seed in seeds for fold in folds]
    epochs = [row["epoch"] for row in curves[0]]
    lines = []
    for key, name in (("training_loss", "training"), ("validation_loss", "held out")):
        values = np.array([[row[key] for row in curve] for curve in curves])
        low, high = values.min(0).tolist(), values.max(0).tolist()
        lines.append(Line(name, epochs, values.mean(0).tolist(), epochs, low, high))
    text = f"{variant.name}: mean over {len(curves)} trainings; the shade reaches from the lowest to the highest."
    return Panel("loss", variant.name, tuple(lines), text)


def _sentence(seeds: Sequence[int], folds: Sequence[int]) -> str:
    count = f"{len(seeds)} trainings with different seeds" + (
        f" on each of {len(folds)} folds" if len(folds) > 1 else ""
    )
    return (
        f"Each variant: {count}; the network after the last epoch is judged, so that no judged case has chosen it. "
        "Probabilities are the mean over the seeds' networks; the table of networks says how far single ones spread."
    )
