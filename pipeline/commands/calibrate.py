"""Calibrate the logits of a model that is already trained, and apply what was found: `tandem calibrate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline import __version__
from pipeline.calibration.base import Calibration
from pipeline.calibration.binning import reliability
from pipeline.calibration.comparison import METHODS, NONE, Candidate, Comparison, compare, method_of, read_calibration
from pipeline.calibration.conformal import ScoreRule, SetsCheck, check_sets, fit_sets, require_alpha
from pipeline.calibration.record import About
from pipeline.calibration.rows import Rows, dilated_foreground
from pipeline.commands.arrays import Array, read_array, read_names, write_array
from pipeline.console import echo, plainly
from pipeline.errors import CaseError, UsageError
from pipeline.report.calibration import CalibrationContent, Figure, MethodRow, calibration_pdf
from pipeline.report.curves import Diagram
from pipeline.spec.explain import did_you_mean
from pipeline.store.files import sha256_file, write_atomic, write_text

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: Of a case: its name, logits (n, C) and labels (n,) of some voxels.
Voxels = tuple[str, Array, Array]
#: Voxels of each case that a calibration is fitted on: as many of every case, so that every case counts the same.
VOXELS_A_CASE = 2000
#: Fits what the comparison recommends.
RECOMMENDED = "recommended"


def calibrate(  # noqa: PLR0913 - each is an option of the command
    logits: str | Path,
    labels: str | Path,
    out: str | Path,
    method: str = "temperature",
    cases: str | Path | None = None,
    report: str | Path | None = None,
    source: str = "validation",
    data: str = "",
    output: str = "",
    sets: float | None = None,
    sets_rule: str | None = None,
) -> Calibration:
    """Fit a calibration, and write it and, where it is asked for, a report on all methods: `tandem calibrate`.

    Args:
        logits: .npy, .npz or .csv, (N, C), or (N,) for the log-odds of class 1 of two.
        labels: likewise, (N,).
        out: the JSON file to write.
        method: a name of `METHODS`, or `recommended`.
        cases: names of the cases that the rows belong to; their rows stay together.
        report: the PDF file to write.
        source: `validation` or `out_of_fold`; the logits of training cases are refused.
        data: whose logits they are, in words; the files' names when empty.
        output: which output of which network they are, where that is known (`About.output`).
        sets: how often sets of classes may miss a case's true class; None for no sets.
        sets_rule: of the sets: `lac` (when None), `aps` or `raps`.

    Returns:
        The calibration.

    Raises:
        UsageError: E_TABLE, E_ROWS, E_LABEL, E_OPTION, E_CONFORMAL and E_CAL_… with what is wrong; E_OUT when a
            file cannot be written.
    """
    rule = _rule(sets, sets_rule)
    logits, labels, out = Path(logits), Path(labels), Path(out)
    cases, report = (None if path is None else Path(path) for path in (cases, report))
    found_logits, found_labels = read_array(logits), read_array(labels)
    names = None if cases is None else read_names(cases)
    about = About(data or _described(logits, cases), datetime.now(UTC).date().isoformat(), source, output)
    if method not in (known := (*METHODS, RECOMMENDED)):
        near = did_you_mean(method, known) or "."
        raise UsageError("E_CAL_METHOD", f"Expected one of {', '.join(known)}, got {method}{near}")
    comparison = None
    if report is not None or method == RECOMMENDED:
        comparison = compare(found_logits, found_labels, names)
    rows = Rows.of(found_logits, found_labels, names)
    fitted = _fit(comparison, method, rows, about)
    check = None
    if sets is not None:
        fitted = replace(fitted, record=replace(fitted.record, sets=fit_sets(rows, sets, rule)))
        check = check_sets(rows, sets, rule)
    text = json.dumps(fitted.to_json(), indent=2, allow_nan=False) + "\n"
    with _writing(out):
        write_atomic(out, lambda path: write_text(path, text), lambda path: _require_same(path, fitted))
    if report is not None and comparison is not None:
        files = {"Logits": logits, "Labels": labels, "Cases": cases, "Calibration": out}
        document = calibration_pdf(report_content(comparison, fitted, files, check))
        with _writing(report):
            write_atomic(report, lambda path: path.write_bytes(document))
    return fitted


def apply_calibration(calibration: str | Path, logits: str | Path, out: str | Path) -> Array:
    """Turn logits into calibrated probabilities, and write its sets of classes too: `tandem calibrate --apply`.

    Args:
        calibration: what `calibrate` has written.
        logits: .npy, .npz or .csv: rows (N, C) or (N,), or a volume (C, I, J, K).
        out: the .npy file to write, of the same shape; sets of classes, bool (N, C), go to
            `OUT_sets.npy`, of rows and not of volumes.

    Returns:
        The probabilities.

    Raises:
        UsageError: E_CAL_FILE, E_TABLE, E_CAL_CLASSES, E_CAL_NONFINITE, E_CAL_PROBABILITIES; E_OUT.
    """
    out = Path(out)
    if out.suffix.lower() != ".npy":
        raise UsageError("E_OUT", f"Expected a .npy file to write, got {out.name}.")
    found, values = read_calibration(Path(calibration)), read_array(Path(logits))
    probabilities = found.apply(values)
    sets = found.sets(values) if values.ndim < 3 else None
    with _writing(out):
        write_array(out, probabilities)
        beside = sets_file(out)
        if sets is None:
            beside.unlink(missing_ok=True)  # of another calibration
        else:
            write_array(beside, sets)
    return probabilities


def chosen_voxels(labels: MetaTensor, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Places in a case's flat labels (1, I, J, K) near the foreground: `VOXELS_A_CASE`, or none without foreground."""
    places = np.flatnonzero(dilated_foreground(labels))
    return random.choice(places, VOXELS_A_CASE) if len(places) else places


def write_voxels(rows: Sequence[Voxels], folder: Path) -> tuple[Path, Path, Path]:
    """Write the voxels of cases as `calibrate` reads them: the files of logits, labels and cases' names."""
    logits, labels, cases = (folder / f"voxel_{part}.npy" for part in ("logits", "labels", "cases"))
    write_array(logits, np.concatenate([values for _, values, _ in rows]))
    write_array(labels, np.concatenate([values for *_, values in rows]))
    write_array(cases, np.concatenate([np.repeat(name, len(values)) for name, _, values in rows]))
    return logits, labels, cases


def sets_file(out: Path) -> Path:
    """Where the sets of classes go, beside the file of probabilities."""
    return out.with_name(f"{out.stem}_sets.npy")


def require_alone(**options: object) -> None:
    """Refuse options that applying a calibration would leave unread.

    Raises:
        UsageError: E_CAL_METHOD.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError("E_CAL_METHOD", f"Expected no {given[0]} beside --apply.", "Leave it out.")


def summary(fitted: Calibration) -> str:
    """What was found, in one line."""
    record = fitted.record
    size = f"{record.cases} cases, {record.classes} classes"
    change = f"{record.nll_before:.4f} before, {record.nll_after:.4f} after (in-sample)"
    promise = f" Sets of classes: {record.promise}" if record.sets else ""
    return f"{fitted.name.capitalize()} calibration on {size}: NLL {change}.{promise}"


def report_content(
    comparison: Comparison, fitted: Calibration, files: dict[str, Path | None], check: SetsCheck | None
) -> CalibrationContent:
    """What the report says.

    Args:
        comparison: of the methods.
        fitted: the calibration that was saved.
        files: what was read and written, by what it is.
        check: of the sets of classes on held-out cases.
    """
    record = fitted.record
    provenance = [
        ("Data", record.about.data),
        ("Source", record.about.source.replace("_", "-")),
        ("Date", record.about.date),
        ("Rows, cases, classes", f"{record.rows}, {record.cases}, {record.classes}"),
        ("Cross-validation", f"{comparison.folds} folds grouped by case"),
        ("NLL of all rows, before and after", f"{record.nll_before:.4f} and {record.nll_after:.4f} (in-sample)"),
        *((name, f"{path.name}, SHA-256 {sha256_file(path)[:12]}") for name, path in files.items() if path),
    ]
    after = fitted.name if fitted.name in comparison.held_out else comparison.recommended
    shown = dict.fromkeys([NONE, after])
    return CalibrationContent(
        comparison.recommended,
        fitted.name,
        comparison.reason,
        record.notes,
        tuple(_row(item) for item in comparison.candidates),
        tuple(_diagram(name, comparison) for name in shown),
        tuple(provenance),
        __version__,
        () if check is None else tuple(_sets_rows(fitted, check)),
    )


def _rule(sets: float | None, name: str | None) -> ScoreRule:
    if sets is None and name is not None:
        raise UsageError("E_OPTION", "Expected a level of sets beside a rule of sets, got none.", "Give --sets 0.1.")
    if sets is not None:
        require_alpha(sets)
    return ScoreRule(name or "lac")


def _sets_rows(fitted: Calibration, check: SetsCheck) -> Iterator[tuple[str, str]]:
    yield "Promise", fitted.record.promise
    if fitted.record.rows > fitted.record.cases:
        yield "Unit", "The case: it counts as held where the sets of all its rows hold their true class."
    share = f"{check.covered} of {check.cases} cases ({100 * check.covered / check.cases:.1f} %"
    yield "Held-out cases that are held", f"{share}, 95 % interval {100 * check.low:.1f} to {100 * check.high:.1f} %)"
    for size, count in enumerate(check.sizes):
        yield f"Sets of {size} classes" if size != 1 else "Sets of 1 class", f"{count} of {sum(check.sizes)}"


def _fit(comparison: Comparison | None, method: str, rows: Rows, about: About) -> Calibration:
    if comparison is not None and method == RECOMMENDED:
        if comparison.recommended == NONE:
            what = f"Expected a method that helps: {comparison.reason}"
            raise UsageError("E_CAL_NO_FIT", what, "Use the logits as is.")
        method = comparison.recommended
    return method_of(method).fit_rows(rows, about)


def _row(item: Candidate) -> MethodRow:
    figures = {one.name: Figure(one.value, one.low, one.high, one.null_low, one.null_high) for one in item.measures}
    return MethodRow(item.name, figures, item.excess, item.excess_error, item.fault)


def _diagram(name: str, comparison: Comparison) -> Diagram:
    candidate = next(item for item in comparison.candidates if item.name == name)
    ece = next(item.value for item in candidate.measures if item.name == "ece")
    title = "Before: the model's own probabilities" if name == NONE else f"After: {name}"
    return Diagram(title, reliability(comparison.held_out[name], comparison.labels), ece)


def _described(logits: Path, cases: Path | None) -> str:
    return f"{logits.name}, cases of {cases.name}" if cases is not None else f"{logits.name}, each row a case"


def _require_same(path: Path, fitted: Calibration) -> None:
    if read_calibration(path) != fitted:
        raise UsageError("E_VERIFY", f"Expected {path.name} to read back as it was written.")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except CaseError as error:
        raise UsageError(error.code, error.message) from error
    except OSError as error:
        raise UsageError("E_OUT", f"The file {path} cannot be written ({error.strerror}).") from error


class BundleCalibration:
    """`calibrate` as a bundle's configuration asks for it, with plain texts.

    Args:
        logits: path of the logits.
        labels: path of the labels.
        cases: path of the cases' names; empty where each row is a case of its own.
        method: a name of `METHODS`, or `recommended`.
        source: `validation` or `out_of_fold`.
        output_dir: takes `calibration.json` and `calibration.pdf`.
        set_level: how often sets of classes may miss a case's true class; 0 for no sets.
    """

    def __init__(
        self, logits: str, labels: str, cases: str, method: str, source: str, output_dir: str, set_level: float = 0
    ) -> None:
        self.output_dir = Path(output_dir)
        self.given: dict[str, Any] = {"logits": logits, "labels": labels, "method": method, "source": source}
        self.given |= {"cases": cases or None, "sets": set_level or None}

    @plainly()
    def run(self) -> None:
        """Fit, write, and say what was found.

        Raises:
            SystemExit: 2 when the input cannot be used; the reason is on stderr.
        """
        out, report = self.output_dir / "calibration.json", self.output_dir / "calibration.pdf"
        echo(summary(calibrate(**self.given, out=out, report=report)))
