"""Registration as a step of a chain: the moving roles of a case onto its fixed one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import MapTransform

from pipeline.errors import CaseError, UsageError
from pipeline.registration.elastix import RegistrationSettings, register_rigid
from pipeline.registration.quality import QualityLimits


class Registerd(MapTransform):
    """Register every moving role that a case has onto its fixed role.

    Gives for each moving role `m`: `m_aligned` (the image on the fixed grid, float32), `m_transform`
    (`SimpleITK.Transform`, LPS mm, from fixed to moving points), `m_quality` (the verdict with its numbers); in
    `measures` the quality and each of its numbers, and in `flags` a sentence when the verdict is not `pass`.

    The elastix parameters are held as text: another file is another configuration, the same file elsewhere is not.

    Args:
        fixed: the role that stays.
        moving: the roles that are moved; a case without one of them is registered without it.
        modalities: role -> DICOM Modality, for the fixed and the moving roles.
        parameter_file: elastix parameter file.
        limits: fields of `QualityLimits`; what is left out keeps its default.
        starts: how many poses are tried on the coarse levels.
        timeout_s: the child process of one registration is ended after this many seconds.

    Raises:
        UsageError: E_CONFIG for a limit that does not exist, a role without modality, or a file that cannot be read.
    """

    def __init__(
        self,
        fixed: str,
        moving: Sequence[str],
        modalities: Mapping[str, str],
        parameter_file: str | Path,
        limits: Mapping[str, float] | None = None,
        starts: int = RegistrationSettings.starts,
        timeout_s: float = RegistrationSettings.timeout_s,
    ) -> None:
        super().__init__(list(moving), allow_missing_keys=True)
        missing = [role for role in (fixed, *moving) if role not in modalities]
        if missing:
            raise UsageError("E_CONFIG", f"Expected a modality for every role, got none for {', '.join(missing)}.")
        self.fixed = fixed
        self.modalities = {role: modalities[role] for role in (fixed, *moving)}
        self.settings = RegistrationSettings(_read(Path(parameter_file)), starts=starts, timeout_s=timeout_s)
        self.limits = _limits(limits or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register one case.

        Args:
            data: `case_id` and MetaTensors (1, I, J, K) under the roles.

        Returns:
            The case and what was found.

        Raises:
            CaseError: E_MISSING_ROLE without the fixed role, and what `register_rigid` raises.
        """
        case = dict(data)
        if self.fixed not in case:
            raise CaseError("E_MISSING_ROLE", f"Expected the fixed role {self.fixed} in the case, got none.")
        measures, flags = dict(case.get("measures", {})), list(case.get("flags", ()))
        for role in self.key_iterator(case):
            modalities = (self.modalities[self.fixed], self.modalities[str(role)])
            found = register_rigid(case[self.fixed], case[role], self.settings, modalities, self.limits)
            case[f"{role}_aligned"], case[f"{role}_transform"] = found.moved, found.transform
            case[f"{role}_quality"] = measures[f"{role}_quality"] = found.quality
            measures |= {f"{role}_{name}": value for name, value in found.quality.items() if _is_number(value)}
            if found.quality["verdict"] != "pass":
                flags.append(f"{role}: registration {found.quality['verdict']}: {found.quality['reason']}")
        return {**case, "measures": measures, "flags": flags}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("E_CONFIG", f"Expected an elastix parameter file, got {path}: {error.strerror}.") from error


def _limits(given: Mapping[str, float]) -> QualityLimits:
    try:
        return QualityLimits(**given)
    except TypeError as error:
        raise UsageError("E_CONFIG", f"Expected fields of QualityLimits as limits: {error}.") from error
