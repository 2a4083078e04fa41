"""Choose the series that play the roles of a data spec. What is not clear is reported, never guessed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.cases import Case, Fault, Instance, Series
from pipeline.dicom.series.again import latest
from pipeline.dicom.series.identity import contradiction, have_two_names
from pipeline.dicom.series.radiograph import is_radiograph
from pipeline.dicom.series.stack import normal_of, number
from pipeline.dicom.series.units import unit_fault, unit_flags
from pipeline.spec.spec import Role, Rule, Spec

_PLANES = ("sagittal", "coronal", "axial")
#: Of the reasons why series of a role's modality do not fit, so many are said of a case.
NEAR = 3


@dataclass(frozen=True)
class Choice:
    """What became of one series: the role it plays, or why it plays none."""

    case_id: str
    role: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Selection:
    """The cases, and for each series of the scan (in its order) what became of it."""

    cases: tuple[Case, ...]
    choices: tuple[Choice, ...]


def select(series: Sequence[Series], spec: Spec, name_case: Callable[[Series], str]) -> Selection:
    """Group series into cases and choose one for each role.

    Args:
        series: after the geometry gate.
        spec: says what one case is, and what a series has to be to play a role.
        name_case: gives the case's pseudonym from any of its series.

    Returns:
        The cases in the order of their ids. Cases in which no series fits any role are left out.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(series):
        groups[name_case(item)].append(index)
    choices: dict[int, Choice] = {}
    cases = []
    for case_id, members in sorted(groups.items()):
        refusals = {i: {name: refuse(series[i], role) for name, role in spec.roles.items()} for i in members}
        chosen, case = _choose(case_id, {i: series[i] for i in members}, spec, refusals)
        choices |= {i: chosen.get(i) or Choice(case_id, "", _why_not(refusals[i])) for i in members}
        if any(not reason for reasons in refusals.values() for reason in reasons.values()):
            cases.append(case)
    return Selection(tuple(cases), tuple(choices[index] for index in range(len(series))))


def refuse(series: Series, role: Role) -> str:
    """Why a series cannot play a role; empty when it can. Its geometry is not asked here."""
    if series.modality not in role.modality:
        return f"modality {series.modality or 'missing'} instead of {' or '.join(role.modality)}"
    first = (series.instances or series.rejected)[0]
    if is_radiograph(series) != (role.dimensions == 2):
        return "a volume, not a radiograph" if role.dimensions == 2 else "a radiograph, not a volume"
    total = len(series.instances) + len(series.rejected)
    if role.dimensions == 3 and total < role.min_instances:
        return f"{total} instances, fewer than {role.min_instances}"
    if role.orientation not in ("any", plane_of(first)):
        return f"{plane_of(first)} instead of {role.orientation}"
    if role.part is not None and not re.search(role.part, series.part):
        return f"{series.part or 'the whole series'} instead of a part that matches /{role.part}/"
    return _broken_rule(first, role)


def _broken_rule(first: Instance, role: Role) -> str:
    """The first rule that an instance does not keep, in words; empty when it keeps all of them."""
    for rule in role.all:
        if not holds(rule, first):
            return f"`all` asks {_words(rule)}"
    for rule in role.none:
        if holds(rule, first):
            return f"`none` forbids {_words(rule)}"
    if role.any and not any(holds(rule, first) for rule in role.any):
        return f"`any` asks {' or '.join(_words(rule) for rule in role.any)}"
    return ""


def holds(rule: Rule, instance: Instance) -> bool:
    """Whether a rule holds for an instance's header; a missing value satisfies no rule."""
    if rule.matches is not None:
        text = instance.tags.get(rule.tag, "")
        return bool(text) and re.search(rule.matches, text) is not None
    value = number(instance, rule.tag)
    return (rule.min is None or value >= rule.min) and (rule.max is None or value <= rule.max)


def plane_of(instance: Instance) -> str:
    """The plane to which a slice is nearest; `unknown` without an orientation."""
    if instance.orientation is None:
        return "unknown"
    return _PLANES[int(np.argmax(np.abs(normal_of(instance))))]


def _words(rule: Rule) -> str:
    if rule.matches is not None:
        return f"{rule.tag} to match /{rule.matches}/"
    low, high = ("" if limit is None else f"{limit:g}" for limit in (rule.min, rule.max))
    return f"{rule.tag} in [{low}, {high}]"


def _why_not(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{role}: {reason}" for role, reason in reasons.items() if reason)


def _choose(
    case_id: str, members: Mapping[int, Series], spec: Spec, refusals: Mapping[int, Mapping[str, str]]
) -> tuple[dict[int, Choice], Case]:
    """One series for each role; the first role that cannot be filled is the case's fault."""
    chosen: dict[int, Choice] = {}
    played: dict[str, Series] = {}
    flags: list[str] = []
    usable = [members[i] for i in members if members[i].fault is None and "" in refusals[i].values()]
    clash = contradiction(usable)
    faults: list[Fault] = [clash] if clash else []
    for name, role in spec.roles.items():
        fitting = [i for i in members if not refusals[i][name] and i not in chosen]
        unfit = {i: fault for i in fitting if (fault := members[i].fault or unit_fault(members[i], role))}
        sound = [i for i in fitting if i not in unfit]
        chosen |= {i: Choice(case_id, "", _why_unfit(name, members[i], fault)) for i, fault in unfit.items()}
        best, repeated = _best(sound, members, role)
        if len(best) == 1:
            chosen |= {i: Choice(case_id, "", _why_another(name, role)) for i in sound}
            chosen[best[0]] = Choice(case_id, name)
            played[name] = members[best[0]]
            flags += [f"{name}: {note}" for note in members[best[0]].notes]
            flags += unit_flags(members[best[0]], role, name)
            if repeated:
                flags.append(f"N_LATEST: {name}: the latest complete one of {repeated} acquisitions was taken")
        elif best:
            chosen |= {i: Choice(case_id, "", f"{name}: ambiguous with another series") for i in best}
            faults.append(Fault.of("E_AMBIGUOUS", f"{len(best)} series fit the role {name} equally well."))
        elif fitting:
            fault = unfit[fitting[0]]
            faults.append(replace(fault, message=f"{name}: {fault.message}"))
            played[name] = members[fitting[0]]
        elif role.required:
            near = [refusals[i][name] for i in members if members[i].modality in role.modality]
            faults.append(_missing(name, list(dict.fromkeys(near))))
        else:
            flags.append(f"N_NO_ROLE: no series fits the optional role {name}")
    if not clash and have_two_names(played.values()):
        flags.append("N_TWO_NAMES: the patient's name differs between series; birth date and sex agree")
    return chosen, Case(case_id, played, tuple(flags), faults[0] if faults else None)


def _best(sound: Sequence[int], members: Mapping[int, Series], role: Role) -> tuple[list[int], int]:
    """The series that are left after the role's preferences; and out of how many repetitions the one was taken."""
    left, repeated = list(sound), 0
    for preference in role.prefer:
        if preference == "most_instances":
            most = max((len(members[i].instances) for i in left), default=0)
            left = [i for i in left if len(members[i].instances) == most]
        elif preference == "first_part":
            first = {(members[i].study_uid, members[i].series_uid): i for i in reversed(left)}
            left = sorted(first.values())
        elif len(left) > 1 and (found := latest([members[i] for i in left])) is not None:
            left, repeated = [left[found]], len(left)
    return left, repeated


def _why_another(name: str, role: Role) -> str:
    words = {"most_instances": "has more instances", "first_part": "is the first part"}
    words["latest"] = "is a later complete acquisition of the same protocol"
    return f"{name}: another series {' or '.join(words[item] for item in role.prefer)}"


def _why_unfit(name: str, series: Series, fault: Fault) -> str:
    return f"{name}: set aside for its geometry" if series.fault else f"{name}: {fault.message}"


def _missing(name: str, near: Sequence[str]) -> Fault:
    """`near`: why those of its modality do not fit."""
    why = f": {'; '.join(near[:NEAR])}{'; …' if near[NEAR:] else ''}" if near else ""
    return Fault.of("E_MISSING_ROLE", f"No series fits the role {name}{why}.")
