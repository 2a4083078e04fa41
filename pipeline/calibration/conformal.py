"""Split conformal prediction: sets of classes that hold the true one with a stated probability.

The guarantee is marginal: on average over calibration sets and new cases that are exchangeable with them. It says
nothing about one patient, nor about a class or a subgroup that was not calibrated on its own (Mondrian).

Source: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World; Angelopoulos, Bates 2021, "A gentle
introduction to conformal prediction", arXiv 2107.07511.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from pipeline.errors import CaseError, UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices

Method = Literal["lac", "aps", "raps"]
Floats = npt.NDArray[np.float64]
#: The name of the one group of a calibration that knows no groups.
ALL = "all"


@dataclass(frozen=True)
class ScoreRule:
    """How unusual a class is for a case: the score that conformal prediction cuts.

    Attributes:
        method: `lac`: 1 - p of the class (Sadinle, Lei, Wasserman 2019): the smallest sets, unequal over cases.
            `aps`: the probability of all classes down to this one (Romano, Sesia, Candès 2020): adapts to hard cases.
            `raps`: `aps` plus a penalty for long sets (Angelopoulos, Bates, Malik, Jordan 2021).
        penalty: of `raps`, for each rank beyond `free_ranks` (lambda in the paper).
        free_ranks: of `raps`, how many classes a set may hold without a penalty (k_reg in the paper).
        randomised: `aps` and `raps` count a random share of the class's own probability, which makes the sets smaller
            on average, at the price of chance in every set; without it, they count all of it.
    """

    method: Method = "lac"
    penalty: float = 0.01
    free_ranks: int = 1
    randomised: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no rule.

        Raises:
            UsageError: E_CONFORMAL.
        """
        if self.method not in ("lac", "aps", "raps"):
            raise UsageError("E_CONFORMAL", f"Expected the method lac, aps or raps, got {self.method!r}.")
        if self.penalty < 0 or self.free_ranks < 0:
            raise UsageError("E_CONFORMAL", "Expected a penalty and a number of free ranks that are not negative.")

    @property
    def needs_uniforms(self) -> bool:
        """Whether scores take a random number a case."""
        return self.randomised and self.method != "lac"


@dataclass(frozen=True)
class ClassSets:
    """A fitted conformal predictor of classes.

    Attributes:
        rule: the score.
        alpha: how often a set may miss the true class.
        thresholds: group -> the largest score that a class in the set may have; infinite, so that every class is in
            the set, where the group has too few calibration cases.
        counts: group -> number of calibration cases.
    """

    rule: ScoreRule
    alpha: float
    thresholds: Mapping[str, float]
    counts: Mapping[str, int]

    def predict(
        self, probabilities: npt.ArrayLike, groups: Sequence[str] | None = None, uniforms: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.bool_]:
        """The set of classes for each case. A set may be empty: no class looks like the calibration cases.

        Args:
            probabilities: (N, K), or (N,) for class 1 of two.
            groups: the group of each case, where the calibration knows groups.
            uniforms: (N,) in [0, 1), see `case_uniforms`; for randomised rules.

        Returns:
            (N, K) bool.

        Raises:
            UsageError: E_PROBABILITY, E_ROWS, E_CONFORMAL.
            CaseError: E_CONFORMAL when a group was never calibrated.
        """
        table = class_probabilities(probabilities)
        names = _group_names(groups, len(table))
        unknown = sorted(set(names) - set(self.thresholds))
        if unknown:
            raise CaseError("E_CONFORMAL", f"Expected one of the calibrated groups, got {', '.join(unknown)}.")
        cuts = np.array([self.thresholds[name] for name in names])
        return conformity_scores(table, self.rule, uniforms) <= cuts[:, None]

    def guarantees(self) -> tuple[str, ...]:
        """What the sets promise, in words, one sentence a group."""
        return tuple(_guarantee(name, self.counts[name], self.alpha) for name in self.thresholds)

    def in_short(self) -> str:
        """The level and the number of calibration cases, for where there is no room for `guarantees`."""
        share, count = f"{100 * (1 - self.alpha):.4g} %", sum(self.counts.values())
        return f"{share} of cases' sets hold the true class, on average; n = {count}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; an infinite threshold becomes null."""
        cuts = {name: cut if math.isfinite(cut) else None for name, cut in self.thresholds.items()}
        return {"rule": asdict(self.rule), "alpha": self.alpha, "thresholds": cuts, "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> ClassSets:
        """Read back what `to_json` gave, or its text.

        Raises:
            KeyError, TypeError: when the data are not a conformal predictor.
        """
        found = json.loads(data) if isinstance(data, str) else data
        cuts = {name: math.inf if cut is None else float(cut) for name, cut in found["thresholds"].items()}
        return cls(ScoreRule(**found["rule"]), float(found["alpha"]), cuts, dict(found["counts"]))


def fit_class_sets(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    alpha: float = 0.1,
    rule: ScoreRule | None = None,
    groups: Sequence[str] | None = None,
    uniforms: npt.ArrayLike | None = None,
) -> ClassSets:
    """Calibrate sets of classes on cases that no model was fitted on.

    Args:
        probabilities: (N, K), or (N,) for class 1 of two.
        labels: (N,) true classes.
        alpha: how often a set may miss the true class, in (0, 1).
        rule: the score; LAC when left out.
        groups: the site or scanner of each case: each gets a threshold and a guarantee of its own (Mondrian).
        uniforms: (N,) in [0, 1), see `case_uniforms`; for randomised rules.

    Raises:
        UsageError: E_PROBABILITY, E_LABEL, E_ROWS, E_CONFORMAL.
    """
    chosen = rule or ScoreRule()
    require_alpha(alpha)
    table = class_probabilities(probabilities)
    truth = class_labels(labels, table.shape)
    scores = conformity_scores(table, chosen, uniforms)[np.arange(len(table)), truth]
    names = np.array(_group_names(groups, len(table)))
    members = {name: scores[names == name] for name in dict.fromkeys(names.tolist())}
    cuts = {name: conformal_quantile(found, alpha) for name, found in members.items()}
    return ClassSets(chosen, alpha, cuts, {name: len(found) for name, found in members.items()})


def conformity_scores(probabilities: Floats, rule: ScoreRule, uniforms: npt.ArrayLike | None = None) -> Floats:
    """The score of every class of every case; a set holds the classes with the low ones.

    Args:
        probabilities: (N, K).
        rule: which score.
        uniforms: (N,) in [0, 1) for randomised rules, None for the others.

    Returns:
        (N, K).

    Raises:
        UsageError: E_CONFORMAL when random numbers are missing, superfluous or outside [0, 1).
    """
    share = _own_share(rule, uniforms, len(probabilities))
    if rule.method == "lac":
        return 1.0 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    down_to = np.cumsum(ordered, axis=1) - (1.0 - share[:, None]) * ordered
    if rule.method == "raps":
        ranks = np.arange(1, ordered.shape[1] + 1)
        down_to = down_to + rule.penalty * np.maximum(ranks - rule.free_ranks, 0)
    scores = np.empty_like(down_to)
    np.put_along_axis(scores, order, down_to, axis=1)
    return scores


def conformal_quantile(scores: Floats, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores; infinite where there is none, as for n < 1 / alpha - 1."""
    rank = math.ceil(round((len(scores) + 1) * (1 - alpha), 9))
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def case_uniforms(case_ids: Sequence[str], seed: int) -> Floats:
    """A random number for each case that depends on the seed and its name alone, not on order or batch.

    Returns:
        (N,) in [0, 1).
    """
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in case_ids)
    return np.array([(int.from_bytes(digest[:8], "big") >> 11) / 2.0**53 for digest in digests])


def fewest_cases(alpha: float) -> int:
    """How many calibration cases a guarantee at alpha takes: the smallest n with 1 / (n + 1) <= alpha."""
    return math.ceil(round(1 / alpha - 1, 9))


def require_alpha(alpha: float) -> None:
    """Refuse a level that is none.

    Raises:
        UsageError: E_CONFORMAL.
    """
    if not 0 < alpha < 1:
        raise UsageError("E_CONFORMAL", f"Expected alpha between 0 and 1, got {alpha}.")


def _own_share(rule: ScoreRule, uniforms: npt.ArrayLike | None, count: int) -> Floats:
    """The share of a class's own probability that its score counts: (N,)."""
    if rule.needs_uniforms != (uniforms is not None):
        wanted = "random numbers, one a case" if rule.needs_uniforms else "no random numbers"
        raise UsageError(
            "E_CONFORMAL", f"Expected {wanted} for this rule, got {'none' if uniforms is None else 'some'}."
        )
    if uniforms is None:
        return np.ones(count)
    share = np.asarray(uniforms, dtype=np.float64)
    if share.shape != (count,) or not ((share >= 0) & (share < 1)).all():
        raise UsageError("E_CONFORMAL", f"Expected {count} random numbers in [0, 1), got shape {share.shape}.")
    return share


def _group_names(groups: Sequence[str] | None, count: int) -> list[str]:
    group_indices(groups, count)
    return [ALL] * count if groups is None else [str(name) for name in groups]


def _guarantee(group: str, count: int, alpha: float) -> str:
    where = "" if group == ALL else f"{group}: "
    if count < fewest_cases(alpha):
        return (
            f"{where}No set can leave a class out: a miss in {alpha:.3g} of cases takes at least {fewest_cases(alpha)} "
            f"calibration cases, and there are {count}. Every set holds all classes."
        )
    misses = math.floor(round((count + 1) * alpha, 9))
    low, high = beta.ppf([0.05, 0.95], count + 1 - misses, misses)
    return (
        f"{where}Calibrated on n = {count} cases: for new cases that are exchangeable with them, the set holds the "
        f"true class in at least {100 * (1 - alpha):.4g} % of cases, on average over calibration sets. One calibration "
        f"set of this size gives between {100 * low:.3g} and {100 * high:.3g} % in nine of ten draws, where scores "
        "have no ties."
    )
