"""What a calibration says of its own making: data, date, counts, likelihood before and after, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.calibration.conformal import ClassSets
from pipeline.errors import UsageError

#: Where logits may come from. Those of the training cases are overconfident and are refused.
SOURCES = ("validation", "out_of_fold")


class CalibrationWarning(UserWarning):
    """A calibration was fitted, but a reader has to know something about it; `record.notes` says it again."""


@dataclass(frozen=True)
class About:
    """What the caller knows about the data of a fit.

    Attributes:
        data: in words, such as `out-of-fold logits of 5 folds, 120 cases`.
        date: of the fit, ISO 8601.
        source: `validation` or `out_of_fold`.
        output: which output of which network the logits are; empty where that is not known.
    """

    data: str
    date: str
    source: str = "validation"
    output: str = ""

    def __post_init__(self) -> None:
        """Refuse logits of the training cases.

        Raises:
            UsageError: E_CAL_TRAINING.
        """
        if self.source not in SOURCES:
            raise UsageError("E_CAL_TRAINING", f"Expected validation or out_of_fold logits, got {self.source!r}.")


@dataclass(frozen=True)
class FitRecord:
    """How a calibration came to be.

    Attributes:
        about: what the caller says of the data.
        rows: number of rows (cases, lesions, voxels).
        cases: number of cases.
        classes: number of classes.
        nll_before: mean negative log-likelihood (nats) of these rows without calibration.
        nll_after: the same with it. In-sample, so too good: `pipeline.calibration.compare` gives the honest figure.
        notes: what a reader has to know.
        sets: of classes, with a promise; None where nobody asked for them.
    """

    about: About
    rows: int
    cases: int
    classes: int
    nll_before: float
    nll_after: float
    notes: tuple[str, ...] = ()
    sets: ClassSets | None = None

    @property
    def promise(self) -> str:
        """What the sets of classes promise, in words; empty where there are none."""
        if self.sets is None:
            return ""
        others = "The networks of the folds were scored, not the one in use, so that for it this holds approximately."
        return " ".join([self.sets.guarantee(), *([others] if self.about.source == "out_of_fold" else [])])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        data = asdict(self)
        del data["sets"]
        sets = {} if self.sets is None else {"sets": {**self.sets.to_json(), "promise": self.promise}}
        return {**data.pop("about"), **data, "notes": list(self.notes), **sets}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FitRecord:
        """Read back what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: when the data are not a record.
            UsageError: E_CAL_TRAINING.
        """
        output = str(data.get("output", ""))  # files of before had none
        about = About(str(data["data"]), str(data["date"]), str(data["source"]), output)
        rows, cases, classes = (int(data[name]) for name in ("rows", "cases", "classes"))
        notes = tuple(str(note) for note in data["notes"])
        likelihoods = float(data["nll_before"]), float(data["nll_after"])
        sets = ClassSets.from_json(data["sets"]) if "sets" in data else None
        return cls(about, rows, cases, classes, *likelihoods, notes, sets)
