"""Registration as a step of a chain: the moving roles of a case onto its fixed one."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline.cases import GRADES, Document, Verdict, worst
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import orientation_of
from pipeline.label_measures import MeasureRegionsd, names_of
from pipeline.registration.findings import AlignmentLimits, judge_labels, label_numbers, worsen
from pipeline.registration.headers import UNKNOWN, share_frame
from pipeline.registration.landmarks import landmarks_key, read_landmarks
from pipeline.registration.register import Registration, RegistrationSettings, limits_for, register
from pipeline.registration.request import HEADERS, Method, Side, method
from pipeline.registration.sections import alignment_section
from pipeline.registration.transforms import compose, outside_value, resample_image, resample_labels
from pipeline.registration.warp import as_transform
from pipeline.spec.register import Register
from pipeline.spec.spec import Spec
from pipeline.store.sections import Display, Regions, Sections
from pipeline.volumes import affine_of, oriented, volume
from pipeline.words import in_words


def aligned_key(name: str) -> str:
    """The key of a moving role's image, or of a mask, on the fixed grid."""
    return f"{name}_aligned"


def aligned_images(spec: Spec, roles: Iterable[str]) -> dict[str, str]:
    """The images of roles after registration: key -> kind, as a later stage reads it.

    Args:
        spec: the data spec.
        roles: of which roles, in this order.

    Returns:
        The aligned image of those that are moved, the image itself of all others; with `?` where the role is optional
        or a failed alignment leaves it out.
    """
    sure = spec.needed - {*(spec.moving if spec.may_be_left_out else ())}
    kind = {role: "document" if role in spec.of_kind("sound") else "image" for role in roles}
    return {
        aligned_key(role) if role in spec.moving else role: kind[role] if role in sure else f"{kind[role]}?"
        for role in roles
    }


def measure_aligned_regions(spec: Spec) -> MeasureRegionsd:
    """What measures the aligned images in all regions on the fixed grid, and says how both are shown.

    Args:
        spec: the data spec.
    """
    fixed, shown = spec.fixed, spec.displays
    aligned = {
        aligned_key(role): replace(
            shown[role], key=aligned_key(role), name=f"{shown[role].name} aligned to {shown[fixed].name}"
        )
        for role in spec.moving
    }
    masks, over = {}, {}
    for name, values in spec.mask_labels.items():
        if spec.mask_roles[name] in (fixed, *spec.moving):
            key = name if spec.mask_roles[name] == fixed else aligned_key(name)
            # the fixed image's own regions have been measured by ingest
            masks[key], over[key] = values, (*aligned, *(() if key == name else (fixed,)))
    return MeasureRegionsd(masks, over, {fixed: shown[fixed], **aligned})


class Registerd(MapTransform):
    """Register every moving role that a case has onto its fixed role.

    Gives for each moving role `m`: `m_aligned` (the image on the fixed grid, float32), `m_transform` and `m_inverse`
    (`SimpleITK.Transform`, LPS mm, from fixed to moving points and back), `m_quality` (the verdict with its numbers),
    `m_log` (what elastix did); for each of its masks `k` `k_aligned`; in `measures` the numbers, under `verdict` the
    verdict over all of them, and in `flags` a sentence where one is not `pass`. A verdict of `fail` makes the aligned
    image unfit for later stages and leaves out the masks, or stops the case.

    The elastix parameters are held as text: another file is another configuration, the same file elsewhere is not.

    Args:
        plan: the `register` section of the data spec.
        modalities: role -> DICOM Modality, for the fixed and the moving roles.
        parameter_dir: where the shipped elastix parameter files lie.
        masks: name of a mask -> the role that it is of.
        labels: name of a mask -> its labels and their values; what the fixed and a moving image share is compared.
        displays: role -> how its image is shown.
        needed: the roles that every case has.
        starts: how many poses are searched from at about 6 mm.
        timeout_s: the child process of one registration is ended after this many seconds.

    Raises:
        UsageError: E_CONFIG for a role without modality, or a parameter file that cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each is one line of the bundle's chain
        self,
        plan: Register,
        modalities: Mapping[str, str],
        parameter_dir: str | Path,
        masks: Mapping[str, str] | None = None,
        labels: Mapping[str, Mapping[str, int]] | None = None,
        displays: Mapping[str, Display] | None = None,
        needed: Collection[str] = (),
        starts: int = RegistrationSettings.starts,
        timeout_s: float = RegistrationSettings.timeout_s,
    ) -> None:
        super().__init__(plan.in_order, allow_missing_keys=True)
        missing = [role for role in plan.roles if role not in modalities]
        if missing:
            raise UsageError("E_CONFIG", f"Expected a modality for every role, got none for {', '.join(missing)}.")
        self.plan = plan.without_files
        self.modalities = {role: modalities[role] for role in plan.roles}
        self.masks = dict(masks or {})
        self.labels = dict(labels or {})
        shown = displays or {}
        self.displays = {role: shown.get(role) or Display(role, in_words(role)) for role in plan.roles}
        self.needed = frozenset(needed) & {*plan.moving}
        self.limits = AlignmentLimits(**plan.limits.given)
        self.settings = {
            role: RegistrationSettings(
                self._method(plan, role, Path(parameter_dir)),
                starts=starts,
                landmark_weight=plan.settings(role).landmark_weight or 0.0,
                timeout_s=timeout_s,
            )
            for role in plan.moving
        }

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        of_role = {"transform": "transform", "inverse": "transform", "quality": "measure", "log": "document"}
        made: dict[str, str] = {}
        for role in self.plan.moving:
            keys = {aligned_key(role): "image", **{f"{role}_{name}": kind for name, kind in of_role.items()}}
            made |= {key: kind if role in self.needed else f"{kind}?" for key, kind in keys.items()}
        return made | {aligned_key(name): "label?" for name, of in self.masks.items() if of in self.plan.moving}

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """One section an alignment; and what was drawn on the fixed image, which of a pair no ingest has told of."""
        fixed, roles = self.plan.fixed, [str(key) for key in self.key_iterator(dict(case))]
        found = []
        for role in roles:
            names = (self.displays[fixed].name, self.displays[role].name)
            modalities, pair = (self.modalities[fixed], self.modalities[role]), (case[fixed], case[role])
            limits = limits_for(self.limits, self.settings[role].method, modalities, pair)
            images = (fixed, role, aligned_key(role))
            found.append(alignment_section(images, names, case[f"{role}_quality"], limits, self._focus(case)))
        drawn = [name for name, of in self.masks.items() if of == fixed and name in self.labels and name in case]
        regions = tuple(Regions(name, (fixed,), names_of(name, self.labels[name])) for name in drawn)
        return Sections(tuple(found), regions=regions)

    def _focus(self, case: Mapping[Hashable, Any]) -> str:
        """The first mask on the fixed grid: what somebody has drawn is what a reader wants to see."""
        keys = (
            name if of == self.plan.fixed else aligned_key(name)
            for name, of in self.masks.items()
            if name in self.labels
        )
        return next((key for key in keys if key in case and bool(case[key].any())), "")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register one case.

        Args:
            data: `case_id`, MetaTensors (1, I, J, K) under the roles and masks, under `<role>_landmarks` the path of a
                file of landmarks, and under `frames` that of what ingest has said of the frames of reference.

        Returns:
            The case and what was found.

        Raises:
            CaseError: E_MISSING_ROLE without the fixed role or one that another goes via; E_FRAME when headers are to
                be kept that speak of two frames of reference; E_ALIGNMENT for a failed alignment that stops the case;
                and what `register` raises.
        """
        case = dict(data)
        if self.plan.fixed not in case:
            raise CaseError("E_MISSING_ROLE", f"Expected the fixed role {self.plan.fixed} in the case, got none.")
        found: dict[str, Registration] = {}
        verdicts: list[Verdict] = []
        measures, flags = dict(case.get("measures", {})), list(case.get("flags", ()))
        for key in self.key_iterator(case):
            role = str(key)
            found[role] = alignment = self._compared(case, role, self._align(case, role, found))
            quality = alignment.quality
            case |= self._outputs(case, role, alignment)
            verdicts.append(self._verdict(role, quality))
            measures |= {f"{role}_{name}": value for name, value in quality.items() if _is_number(value)}
            if quality["verdict"] != "pass":
                flags.append(f"{role}: registration {quality['verdict']}: {quality['reason']}")
        return {**case, "measures": measures, "flags": flags, "verdict": worst(verdicts)}

    def _verdict(self, role: str, quality: Mapping[str, Any]) -> Verdict:
        reason = f"Alignment of {self.displays[role].name}: {quality['reason']}"
        return Verdict(quality["verdict"], (reason,), (aligned_key(role),) if quality["verdict"] == "fail" else ())

    def _align(self, case: Mapping[Hashable, Any], role: str, found: Mapping[str, Registration]) -> Registration:
        """Align a role with the fixed one, if need be by way of another role that is aligned already."""
        via = self.plan.moving[role].via
        if via is not None and via not in found:
            raise CaseError("E_MISSING_ROLE", f"Expected the role {via}, by way of which {role} is aligned, got none.")
        onto, settings = via or self.plan.fixed, self.settings[role]
        kept, shared = settings.method.transform == HEADERS, share_frame(case, onto, role)
        if kept and shared is False:
            raise CaseError("E_FRAME", f"Expected {onto} and {role} in one frame of reference, got two.")
        one, other = self._sides(case, onto, role)
        alignment = register(one.upright(), other.upright(), settings, self.limits, one_frame=bool(shared))
        alignment = replace(alignment, moved=_as_stored(alignment.moved, case[onto]))
        if kept and shared is None:
            reason = f"{alignment.quality['reason']} {UNKNOWN}"
            alignment = replace(alignment, quality={**alignment.quality, "reason": reason})
        if via is not None:
            alignment = self._chained(case, role, alignment, found[via])
        if alignment.quality["verdict"] == "fail" and self.plan.on_fail == "stop":
            raise CaseError("E_ALIGNMENT", f"The alignment of {role} failed: {alignment.quality['reason']}")
        return alignment

    def _compared(self, case: Mapping[Hashable, Any], role: str, alignment: Registration) -> Registration:
        """The alignment with what the labels that both images have say about it."""
        fixed, moving = (
            {
                label: (case[mask], value)
                for mask, values in self.labels.items()
                if self.masks.get(mask) == of and mask in case
                for label, value in values.items()
            }
            for of in (self.plan.fixed, role)
        )
        common = [(fixed[label], moving[label]) for label in fixed if label in moving]
        numbers = label_numbers(common, alignment.transform)
        if not numbers:
            return alignment
        return replace(alignment, quality=worsen(alignment.quality, numbers, judge_labels(numbers, self.limits)))

    def _chained(
        self, case: Mapping[Hashable, Any], role: str, alignment: Registration, first: Registration
    ) -> Registration:
        """The way from the fixed image through another one; the moving image is resampled once."""
        via = self.plan.moving[role].via
        transforms = compose(alignment.transforms, first.transforms)
        moving = case[role]
        outside = outside_value(moving, self.modalities[role])
        quality = {**alignment.quality, "via": via}
        if GRADES.index(first.quality["verdict"]) > GRADES.index(quality["verdict"]):
            quality |= {"verdict": first.quality["verdict"], "reason": f"As for {via}: {first.quality['reason']}"}
        return replace(
            alignment,
            transforms=transforms,
            inverses=compose(first.inverses, alignment.inverses),
            moved=resample_image(moving, case[self.plan.fixed], as_transform(transforms), outside),
            quality=quality,
        )

    def _sides(self, case: Mapping[Hashable, Any], onto: str, role: str) -> tuple[Side, Side]:
        """Both images; with landmarks, where the plan and the case have them.

        Raises:
            CaseError: E_INPUT for a mask that is missing; E_LANDMARKS for landmarks that should pull and are missing.
        """
        sides = self._side(case, onto), self._side(case, role)
        # of a cohort, a case may lack a file, which ingest has flagged; a pair is given both or none
        if self.plan.landmarks and not all(side.landmarks for side in sides):
            sides = replace(sides[0], landmarks=None), replace(sides[1], landmarks=None)
        if self.settings[role].landmark_weight > 0 and not any(side.landmarks for side in sides):
            raise CaseError("E_LANDMARKS", f"Expected landmarks of {onto} and {role}, which have a weight, got none.")
        return sides

    def _side(self, case: Mapping[Hashable, Any], role: str) -> Side:
        """An image with its mask and landmarks, where the plan and the case have them."""
        own = self.plan.fixed_mask if role == self.plan.fixed else self.plan.moving[role].mask
        mask = case.get(own) if own else None
        if own and mask is None:
            raise CaseError("E_INPUT", f"Expected the mask {own} to register {role} with, got none.")
        file = case.get(landmarks_key(role))
        marks = None if file is None else read_landmarks(Path(file), affine_of(case[role]))
        return Side(case[role], self.modalities[role], mask, marks)

    def _outputs(self, case: Mapping[Hashable, Any], role: str, alignment: Registration) -> dict[Hashable, Any]:
        """What a stage keeps of an alignment; the masks of a failed one would lie in the wrong place."""
        made: dict[Hashable, Any] = {
            aligned_key(role): alignment.moved,
            f"{role}_transform": alignment.transform,
            f"{role}_inverse": alignment.inverse,
            f"{role}_quality": alignment.quality,
            f"{role}_log": Document(".txt", alignment.log.encode()),
        }
        masks = [name for name, of in self.masks.items() if of == role and name in case]
        if alignment.quality["verdict"] != "fail":
            grid = case[self.plan.fixed]
            made |= {aligned_key(name): resample_labels(case[name], grid, alignment.transform) for name in masks}
        return made

    def _method(self, plan: Register, role: str, folder: Path) -> Method:
        own = plan.settings(role)
        pair = (self.modalities[own.via or plan.fixed], self.modalities[role])
        return method(str(own.transform), pair, folder, own.parameters)


def _as_stored(moved: MetaTensor, fixed: MetaTensor) -> MetaTensor:
    """An image on the grid of the upright fixed image, on the grid of the fixed image as it is stored."""
    turned = oriented(moved, orientation_of(affine_of(fixed)))
    return moved if turned is moved else volume(turned.as_tensor(), affine_of(fixed))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
