"""The comparison of fusion strategies on a labelled cohort of one's own, on folds that keep patients together."""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.comparison.classification import Beside, Compared, Findings, compare_variants
from pipeline.comparison.duplicates import require_apart
from pipeline.comparison.stream_controls import controls, told_facts
from pipeline.comparison.stream_report import Around, shuffled_judgements, with_judgements
from pipeline.comparison.streams import OVERLAY, chosen_streams, network_settings, stream_strategies
from pipeline.comparison.streams import OWN_KEYS as OWN_KEYS_OF_STREAMS
from pipeline.comparison.trials import Protocol, Variant, run_trials, trials_of
from pipeline.console import quiet_libraries, track
from pipeline.errors import PipelineError, UsageError, pipeline_cause
from pipeline.fusion.network import WIDTHS, parameter_count, width_for
from pipeline.learning.table import BY_CLASS, PAIRING, Row, read_table, split, with_folds
from pipeline.report.classification import interval, number
from pipeline.run.options import require_known, workflow
from pipeline.shipped import shipped
from pipeline.spec.streams import Stream, plain_streams
from pipeline.store.files import writable_folder

TABLE = "cases.csv"
_INCOMPLETE = (
    "{} of {} cases lack an input. A network of one input alone has learned from those that have it, fusion from all; "
    "all are compared by the {} that lack none."
)
#: Keys of `train.yaml` that the comparison sets itself, or that would let a judged fold choose the network.
OWN_KEYS = (
    *("modalities", "ct_modalities", "classes", "folds", "fold", "seed", "dataset_dir", "table_name", "output_dir"),
    *("bundle_root", "network_def::mode", "patience", "resume"),
)


def compare(  # noqa: PLR0913 - each is an option of the command
    cases: str | Path,
    out: str | Path,
    modalities: Sequence[str] | None = None,
    ct_modalities: Sequence[str] | None = None,
    classes: int = 2,
    folds: int = 5,
    seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    streams: str | Path | Mapping[str, Any] = "",
    facts: Sequence[str] = (),
    judged: Sequence[int] = (),
    class_names: Sequence[str] = (),
) -> Findings:
    """Train, judge and compare each modality alone, early, intermediate and late fusion: `tandem compare`.

    Every variant has the intermediate network's number of parameters ± 10 % (of streams: `stream_strategies`).
    `OUT/report` takes the report. Where cases lack a modality, it alone learns from those that have it, fusion from
    all, and all variants are compared by the cases that lack none.

    Args:
        cases: the table (`pipeline.learning.table.read_table`); the folds are its own, or are made.
        out: takes the trials and the report; what is done is not done again.
        modalities: columns of the table; `ct` and `mr` when None, with streams all of them.
        ct_modalities: those of them that are CT, in HU; `ct` when None; streams have none.
        classes: how many.
        folds: how many, where the table has none.
        seeds: how many trainings a variant and fold, with the seeds 0, 1 …
        settings: further keys of `train.yaml`; texts are read as Python's literals where they are.
        streams: where the modalities share no grid: a data spec with `streams` (a file, or the name of a shipped one),
            or name -> kind, size and preparation. Controls that see no disease then stand beside the result.
        facts: of streams, columns of the table for the control of file facts, such as the original size.
        judged: folds that are judged, each by networks of all the others, such as 0 where it is a set for validation;
            all when empty.
        class_names: for the report, one a class.

    Returns:
        What was found of every variant.

    Raises:
        UsageError: E_NAMES, E_TABLE, E_LABEL, E_CASE_ID, E_FOLD, E_MODALITY, E_SPEC, E_OPTION (also for a setting that
            is none of `train.yaml`, or that is the comparison's own), E_CONFIG, E_DUPLICATE (a file in two folds)
            before anything is trained; E_NO_CASES when no variant could be trained; E_OUT, E_BUSY.
        CaseError: E_MISSING_ROLE; what reading a file raises, before anything is trained.
    """
    cases, out = Path(cases), Path(out)
    chosen = {name: _literal(value) for name, value in (settings or {}).items()}
    if seeds < 1 or classes < 2:
        raise UsageError("E_OPTION", f"Expected a seed or more and two classes or more, got {seeds} and {classes}.")
    if class_names and len(set(class_names)) != classes:
        raise UsageError("E_NAMES", f"Expected {classes} different names of classes, got {', '.join(class_names)}.")
    if facts and not streams:
        raise UsageError("E_OPTION", f"Expected facts beside streams alone, got {facts[0]}.", "Leave them out.")
    cohort = _of_streams(streams, modalities, ct_modalities) if streams else _of_grid(modalities, ct_modalities)
    _require_settings(chosen, bool(streams))
    columns = list(chosen.get("table_columns", ()))
    rows = with_folds(read_table(cases, cohort.modalities, classes, columns), folds)
    numbers = _judged_folds(rows, judged)
    for fold in numbers:
        split(rows, fold, classes)
    common = {**_common(out, rows, cohort, classes), **chosen}
    variants = stream_strategies(cohort.streams, common) if streams else strategies(cohort.modalities, common)
    whole = _whole(rows, cohort.modalities, classes)
    among = frozenset(row.case_id for row in whole) if len(whole) < len(rows) else frozenset()
    protocol = Protocol(out, common, among=among)
    tables = _tables_alone(rows, cohort.modalities)
    variants = [_on_own_table(item, tables) for item in variants]
    for own, fold in product(tables.values(), numbers):
        split(own, fold, classes)
    require_apart(rows)
    _require_readable(rows, common, bool(streams))
    around: Around | None = None
    if streams:
        variants = with_judgements(variants, shuffled_judgements(rows, cohort.modalities))
        seen = controls(whole, cohort.modalities, told=told_facts(cases, facts), judged=numbers)
        paired = any(row.pairing == BY_CLASS for row in rows)
        around = Around(protocol, variants, range(seeds), numbers, seen, paired)
    said = (_INCOMPLETE.format(len(rows) - len(whole), len(rows), len(whole)),) if among else ()

    def beside(found: Sequence[Compared]) -> Beside:
        more = around.beside(found) if around else Beside()
        return replace(more, said=(*said, *more.said))

    writable_folder(out)
    write_table(out / TABLE, rows, cohort.modalities, columns)
    for name, own in tables.items():
        write_table(out / _own_table(name), own, cohort.modalities, columns)
    run_trials(protocol, trials_of(variants, range(seeds), numbers))
    return compare_variants(
        protocol, variants, range(seeds), numbers, out / "report", beside=beside, class_names=class_names
    )


def _require_readable(rows: Sequence[Row], common: Mapping[str, Any], with_streams: bool) -> None:
    """Read every file as the networks will: hours of training are not lost to one that cannot be read.

    Raises:
        PipelineError: that of the first such case, with how many there are.
    """
    quiet_libraries()
    settings = {**common, "bundle_root": str(shipped("bundles", "fuse"))}
    read = workflow(_configurations(with_streams), settings).parser.get_parsed_content("read")
    faults: list[PipelineError] = []
    for row in track(rows, len(rows), "reading"):
        try:
            read(row.item())
        except Exception as error:
            if (known := pipeline_cause(error)) is None:
                raise
            whose = "" if row.case_id in known.message else f"{row.case_id}: "
            faults.append(type(known)(known.code, whose + known.message, known.remedy))
    if faults:
        first = faults[0]
        what = f"{len(faults)} of {len(rows)} cases cannot be read; {first.message}"
        raise type(first)(first.code, what, first.remedy)


def _whole(rows: Sequence[Row], modalities: Sequence[str], classes: int) -> list[Row]:
    """The cases that have every modality: those by which all networks can be compared.

    Raises:
        UsageError: E_NO_CASES when they lack a class.
    """
    found = [row for row in rows if all(name in row.images for name in modalities)]
    if set(range(classes)) - {row.label for row in found}:
        what = f"Expected cases of every class that have all of {', '.join(modalities)}, got {len(found)} in all."
        raise UsageError("E_NO_CASES", what, "Compare fewer of them at a time: --modalities.")
    return found


def _own_table(modality: str) -> str:
    return f"cases_{modality}.csv"


def _tables_alone(rows: Sequence[Row], modalities: Sequence[str]) -> dict[str, list[Row]]:
    """Modality that some case lacks -> the cases that have it: what it learns from alone."""
    has = {name: [row for row in rows if name in row.images] for name in modalities}
    return {name: own for name, own in has.items() if len(own) < len(rows)}


def _on_own_table(variant: Variant, tables: Mapping[str, Sequence[Row]]) -> Variant:
    seen = variant.settings.get("modalities", ())
    if len(seen) != 1 or seen[0] not in tables:
        return variant
    return replace(variant, settings={**variant.settings, "table_name": _own_table(seen[0])})


def _judged_folds(rows: Sequence[Row], asked: Sequence[int]) -> list[int]:
    there = sorted({row.fold for row in rows if row.fold is not None})
    if strangers := [fold for fold in asked if fold not in there]:
        got = f"{strangers[0]}; there are {', '.join(map(str, there))}"
        raise UsageError("E_FOLD", f"Expected folds of the table to judge, got {got}.", "Name one of them.")
    return sorted(set(asked)) or there


@dataclass(frozen=True)
class Cohort:
    """What is looked at: columns of the table; those that are CT on one grid, or the streams, which share none."""

    modalities: Sequence[str]
    ct_modalities: Sequence[str] = ()
    streams: Mapping[str, Stream] = field(default_factory=dict)


def _of_grid(modalities: Sequence[str] | None, ct_modalities: Sequence[str] | None) -> Cohort:
    modalities = ("ct", "mr") if modalities is None else modalities
    ct_modalities = ("ct",) if ct_modalities is None else ct_modalities
    strangers = [name for name in ct_modalities if name not in modalities]
    if strangers or len(modalities) < 2:
        got = strangers[0] if strangers else ", ".join(modalities) or "none"
        raise UsageError("E_MODALITY", f"Expected two or more modalities, the CT ones among them, got {got}.")
    return Cohort(modalities, ct_modalities)


def _of_streams(
    streams: str | Path | Mapping[str, Any], modalities: Sequence[str] | None, ct_modalities: Sequence[str] | None
) -> Cohort:
    if ct_modalities:
        remedy = "Say `intensity: ct` of a stream that is CT."
        raise UsageError("E_OPTION", f"Expected no ct_modalities beside streams, got {ct_modalities[0]}.", remedy)
    found = chosen_streams(streams, modalities)
    return Cohort(list(found), (), found)


def _require_settings(settings: Mapping[str, Any], with_streams: bool) -> None:
    own = (*OWN_KEYS, *(OWN_KEYS_OF_STREAMS if with_streams else ()))
    if bad := [name for name in settings if name in own]:
        raise UsageError("E_OPTION", f"Expected keys of train.yaml that the comparison leaves open, got {bad[0]}.")
    require_known(_configurations(with_streams), settings)


def _configurations(with_streams: bool) -> list[Path]:
    names = ["train.yaml", *([f"overlays/{OVERLAY}.yaml"] if with_streams else [])]
    return [shipped("bundles", "fuse", "configs") / name for name in names]


def _common(out: Path, rows: Sequence[Row], cohort: Cohort, classes: int) -> dict[str, Any]:
    """Keys of `train.yaml` that follow from the table; masks are learned from where there are any."""
    common = {"dataset_dir": str(out), "table_name": TABLE, "modalities": list(cohort.modalities), "classes": classes}
    if cohort.streams:
        return {**common, "streams": plain_streams(cohort.streams)}
    labels = 2 if any(row.mask for row in rows) else 0
    return {**common, "ct_modalities": list(cohort.ct_modalities), "labels": labels}


def strategies(modalities: Sequence[str], common: Mapping[str, Any]) -> list[Variant]:
    """Each modality alone, early, intermediate and late fusion, with equal budgets.

    Args:
        modalities: two or more.
        common: keys of `train.yaml`, those of `network_def::` among them; the width is that of intermediate fusion.

    Raises:
        UsageError: E_CONFIG.
    """
    from monai.bundle import ConfigParser

    given, width = network_settings(common)
    train = ConfigParser.load_config_file(str(shipped("bundles", "fuse", "configs", "train.yaml")))
    shared = {"deep": train["network_def"]["deep"], **given, "modalities": list(modalities), "labels": common["labels"]}
    budget = parameter_count({**shared, "mode": "intermediate", "width": width or WIDTHS["intermediate"]})

    def variant(name: str, mode: str, only: str = "") -> Variant:
        seen = [only] if only else list(modalities)
        chosen = width_for(budget, {**shared, "modalities": seen, "mode": mode})
        more = {"modalities": seen, "modality_dropout": 0.0} if only else {}
        return Variant(name, (), {"network_def::mode": mode, "network_def::width": chosen, **more})

    alone = [variant(f"{name} alone", "single", name) for name in modalities]
    return [*alone, *(variant(mode, mode) for mode in ("early", "intermediate", "late"))]


def write_table(path: Path, rows: Sequence[Row], modalities: Sequence[str], columns: Sequence[str] = ()) -> None:
    """Write the table with its folds, whole paths and further numbers, so that every trial reads the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["case_id", "patient_id", *modalities, "label", "mask", "fold", PAIRING, *columns])
        for row in rows:
            images = [row.images[name].resolve() if name in row.images else "" for name in modalities]
            label = "" if row.label < 0 else row.label
            mask = row.mask.resolve() if row.mask else ""
            numbers = ["" if math.isnan(number) else number for number in row.table]
            writer.writerow([row.case_id, row.patient_id, *images, label, mask, row.fold, row.pairing, *numbers])


def headline(found: Findings, name: str) -> str:
    """The AUROC of a variant with its interval, and those of its single networks, in one line."""
    best = found.auroc(name)
    single = found.variant(name).auroc
    return f"{name}: AUROC {number(best.value)}, {interval(best.low, best.high)}; single networks {single}"


def _literal(value: Any) -> Any:
    """A value of the command line: a number, list, … where it is one, else the text."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
