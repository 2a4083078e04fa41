"""A signature as files: all figures (JSON), features and scores (CSV), and a page to read (`signature.md`)."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.signature.signature import Measured, Signature
from pipeline.columns import csv_text
from pipeline.evaluation.intervals import Interval
from pipeline.store.files import save_text

#: So many of the features chosen most often are on the page.
SHOWN = 15
_WIDTH = 120


def write_signature(found: Signature, folder: Path) -> None:
    """Write all files into a folder; the same cohort and design give the same bytes.

    Raises:
        CaseError: E_DISK.
    """
    texts = {
        "signature.json": json.dumps(as_plain(found), indent=1) + "\n",
        "features.csv": csv_text(_feature_rows(found)),
        "scores.csv": csv_text(_score_rows(found)),
        "signature.md": page(found),
    }
    for name, text in texts.items():
        save_text(folder / name, text)


def as_plain(found: Signature) -> dict[str, Any]:
    """Everything but features and scores of single cases."""
    final, names = found.final, found.cohort.features
    return {
        "measure": found.cohort.outcome.measure,
        **_counts(found),
        "design": found.design.model_dump(mode="json"),
        "measured": [_plain(item) for item in found.measured],
        "permutation": {
            "p_value": found.p_value,
            "mean": float(found.null.mean()) if len(found.null) else None,
            "values": [round(value, 6) for value in found.null.tolist()],
        },
        "stability": found.stability,
        "final": [
            {
                "feature": names[column],
                "weight": float(weight),
                "mean": float(final.training.mean[column]),
                "deviation": float(final.training.deviation[column]),
                "median": float(final.training.medians[column]),
            }
            for column, weight in zip(final.columns.tolist(), final.weights, strict=True)
        ],
    }


def page(found: Signature) -> str:
    """The page, Markdown."""
    counts, measure = _counts(found), found.cohort.outcome.measure
    told = (
        f"{counts['cases']} cases of {counts['patients']} patients, {counts['events']} with the event or of class 1; "
    )
    told += f"{counts['features']} features, {counts['varying']} of which vary. {_how(found)}"
    lines = ["# Radiomics signature", "", *wrapped(told), ""]
    lines += [f"| | {measure} | {found.design.confidence:.0%} interval | signature less it |", "|---|---|---|---|"]
    lines += [f"| {item.name} | {item.value:.3f} | {ends(item.interval)} | {_more(item)} |" for item in found.measured]
    lines += ["", *wrapped(_READING), "", "## By chance", "", *wrapped(_chance(found)), ""]
    lines += [
        "## Features",
        "",
        *wrapped(_stable(found)),
        "",
        "| feature | chosen | cases without it |",
        "|---|---|---|",
    ]
    order = np.argsort(-found.chosen, kind="stable")[:SHOWN]
    lines += [
        f"| `{found.cohort.features[at]}` | {found.chosen[at]:.0%} | {found.missing[at]} |"
        for at in order
        if found.chosen[at] > 0
    ]
    lines += ["", "## The signature of all cases", "", *wrapped(_FINAL), "", "| feature | weight | mean | deviation |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| `{item['feature']}` | {item['weight']:.4g} | {item['mean']:.6g} | {item['deviation']:.6g} |"
        for item in as_plain(found)["final"]
    ]
    return "\n".join([*lines, ""])


_READING = (
    "Each patient is scored by signatures that were learned from other patients: filters, choice of features, "
    "weights, fillings of gaps and harmonisation alike. Only scores of one fold are compared, since two folds have two "
    "signatures. Intervals resample patients with their scores; they do not hold what other training cases would have "
    "changed. Single features are judged on the same pairs, and nothing is learned for them: below 0.5, low values go "
    "with the event."
)
_FINAL = (
    "Fitted on all cases; the figures above are of the procedure that made it. A case's score is the sum of weight "
    "times (value - mean) / deviation: the higher, the likelier or sooner the event."
)


def _how(found: Signature) -> str:
    design = found.design
    kind = "Cox's regression" if found.cohort.outcome.time is not None else "Logistic regression"
    batches = sorted(set(found.cohort.batches))
    combat = f" ComBat on each training part, batches {', '.join(batches)}." if batches else ""
    return (
        f"{kind} of up to {max(design.sizes)} features chosen by {design.select}, {design.folds} folds with "
        f"{design.inner_folds} inner ones, {design.repeats} times, seed {design.seed}.{combat}"
    )


def _chance(found: Signature) -> str:
    if found.p_value is None:
        return "Not asked for."
    return (
        f"With the outcome shuffled among the patients {len(found.null)} times, the same procedure gives "
        f"{found.null.mean():.3f} on average, and {np.quantile(found.null, 0.95):.3f} or more in 5 %. "
        f"p = {found.p_value:.3f} (one-sided)."
    )


def _stable(found: Signature) -> str:
    if found.stability is None:
        return "The stability of the choice is undefined: there is nothing to choose."
    gaps = int(found.missing.sum())
    filled = f" {gaps} missing values were filled with the median of the training cases." if gaps else ""
    return (
        f"Stability of the choice (Nogueira): {found.stability:.2f}, where 1 is always the same and 0 as by chance."
        f"{filled}"
    )


def _counts(found: Signature) -> dict[str, int]:
    cohort = found.cohort
    return {
        "cases": len(cohort.case_ids),
        "patients": int(cohort.patients.max()) + 1,
        "events": int(cohort.outcome.event.sum()),
        "features": len(cohort.features),
        "varying": int((found.final.training.deviation > 0).sum()),
        "missing": int(found.missing.sum()),
    }


def _feature_rows(found: Signature) -> list[Sequence[object]]:
    weights = dict(zip(found.final.columns.tolist(), found.final.weights.tolist(), strict=True))
    parts = zip(found.cohort.features, found.chosen.tolist(), found.missing.tolist(), strict=True)
    rows = [[name, share, gaps, weights.get(at, "")] for at, (name, share, gaps) in enumerate(parts)]
    return [["feature", "chosen", "missing", "weight"], *rows]


def _score_rows(found: Signature) -> list[Sequence[object]]:
    repeats = [f"{kind}_{number}" for number in range(1, found.design.repeats + 1) for kind in ("fold", "score")]
    rows: list[Sequence[object]] = [["case_id", "event", *repeats]]
    scored = found.nested
    for at, name in enumerate(found.cohort.case_ids):
        both = zip(scored.folds[at].tolist(), scored.scores[at].tolist(), strict=True)
        cells = [cell for fold, score in both for cell in (fold, f"{score:.6g}")]
        rows.append([name, int(found.cohort.outcome.event[at]), *cells])
    return rows


def _plain(item: Measured) -> dict[str, Any]:
    more = item.less_interval
    return {
        "name": item.name,
        "value": item.value,
        "low": item.interval.low,
        "high": item.interval.high,
        "method": item.interval.method,
        "note": item.interval.note,
        "signature_more": item.less,
        "more_low": more.low if more else None,
        "more_high": more.high if more else None,
    }


def _more(item: Measured) -> str:
    if item.less is None or item.less_interval is None:
        return ""
    return f"{item.less:+.3f} ({ends(item.less_interval, signed=True)})"


def ends(found: Interval, signed: bool = False) -> str:
    """An interval in words: `0.512 to 0.834`, or why there is none."""
    if found.low is None or found.high is None:
        return found.note or "none"
    return f"{found.low:+.3f} to {found.high:+.3f}" if signed else f"{found.low:.3f} to {found.high:.3f}"


def wrapped(text: str) -> list[str]:
    """A paragraph's lines."""
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
