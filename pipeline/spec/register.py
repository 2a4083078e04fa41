"""The `register` section of a data spec: what stays, what is moved onto it and how, and when that is good enough."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, StrictFloat, field_validator, model_validator

from pipeline.spec.explain import Model
from pipeline.spec.paths import compile_pattern

Transform = Literal["headers", "rigid", "affine", "bspline", "landmarks_rigid", "landmarks_affine"]
#: These are found by a metric of the images, beside which landmarks can have a weight.
SEARCHED = {"rigid", "affine", "bspline"}


class Limits(Model):
    """When a registration passes, and when it is only a warning; what is left out keeps its default.

    The fields and their defaults are those of `pipeline.registration.findings.AlignmentLimits`.
    """

    start_disagreement_pass_mm: StrictFloat | None = Field(default=None, gt=0)
    start_disagreement_warn_mm: StrictFloat | None = Field(default=None, gt=0)
    start_clear_gain: StrictFloat | None = Field(default=None, gt=0)
    nmi_noise: StrictFloat | None = Field(default=None, ge=0)
    nmi_least: StrictFloat | None = Field(default=None, ge=1)
    overlap_dice_pass: StrictFloat | None = Field(default=None, ge=0, le=1)
    overlap_dice_warn: StrictFloat | None = Field(default=None, ge=0, le=1)
    peak_pass: StrictFloat | None = Field(default=None, ge=0, le=1)
    local_shift_pass_mm: StrictFloat | None = Field(default=None, gt=0)
    local_shift_warn_mm: StrictFloat | None = Field(default=None, gt=0)
    astray_pass: StrictFloat | None = Field(default=None, ge=0, le=1)
    headers_apart_mm: StrictFloat | None = Field(default=None, gt=0)
    headers_gain: StrictFloat | None = Field(default=None, ge=0)
    landmark_pass_mm: StrictFloat | None = Field(default=None, gt=0)
    landmark_warn_mm: StrictFloat | None = Field(default=None, gt=0)
    jacobian_least: StrictFloat | None = Field(default=None, ge=0, le=1)
    jacobian_most: StrictFloat | None = Field(default=None, ge=1)
    folding_most: StrictFloat | None = Field(default=None, ge=0, le=1)
    label_distance_pass_mm: StrictFloat | None = Field(default=None, gt=0)
    bending_gain_least: StrictFloat | None = Field(default=None, ge=0)

    @property
    def given(self) -> dict[str, float]:
        """The limits that the spec names."""
        return self.model_dump(exclude_none=True)


class Moving(Model):
    """How one role is moved; what is left out is as the `register` section says for all.

    Attributes:
        transform: how freely.
        parameters: an elastix parameter file, or the name of a shipped one, in the place of the transform's own.
        landmark_weight: of the landmarks' distance (mm) beside the image metric.
        via: another moving role, onto which this one is moved first.
        mask: the mask of the spec that says where in this image to look, in the place of the body.
    """

    transform: Transform | None = None
    parameters: str | None = None
    landmark_weight: StrictFloat | None = Field(default=None, ge=0)
    via: str | None = None
    mask: str | None = None


class Register(Model):
    """Which role stays in place, which ones are moved onto it, and how.

    Attributes:
        fixed: the role that stays.
        fixed_mask: the mask of the spec that says where in the fixed image to look, in the place of the body.
        moving: the roles that are moved, each with its own settings; a plain list of names stands for no settings.
        transform: for all moving roles that do not say otherwise.
        parameters: likewise.
        landmark_weight: likewise; 0: landmarks are a start and a check, and do not pull.
        landmarks: role -> which files of the input hold its landmarks (`pipeline.spec.paths`); of a moving role, and
            of the one that it is aligned with.
        on_fail: what becomes of a case whose alignment has the verdict `fail`: `flag` it (the image is kept, and later
            stages go on without it), or `stop` it with E_ALIGNMENT.
        limits: when an alignment passes.
    """

    fixed: str
    fixed_mask: str | None = None
    moving: dict[str, Moving] = Field(min_length=1)
    transform: Transform = "rigid"
    parameters: str | None = None
    landmark_weight: StrictFloat = Field(default=0.0, ge=0)
    landmarks: dict[str, str] = Field(default={})
    on_fail: Literal["flag", "stop"] = "flag"
    limits: Limits = Limits()

    @field_validator("moving", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, list | tuple):
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if item is None else item for name, item in value.items()}
        return value

    @field_validator("landmarks")
    @classmethod
    def _name_cases(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            compile_pattern(pattern)
        return value

    @model_validator(mode="after")
    def _landmarks_come_in_pairs(self) -> Register:
        pairs = {role: (role, moving.via or self.fixed) for role, moving in self.moving.items()}
        used = {role for pair in pairs.values() if {*pair} <= self.landmarks.keys() for role in pair}
        alone = [role for role in self.landmarks if role not in used]
        if alone:
            raise ValueError(f"`landmarks` of `{alone[0]}` have no counterpart: name both roles that are aligned")
        return self

    @model_validator(mode="after")
    def _weights_are_used(self) -> Register:
        used = [name for name in self.moving if self.settings(name).transform in SEARCHED]
        idle = [name for name, own in self.moving.items() if own.landmark_weight and name not in used]
        if idle or (self.landmark_weight and not used):
            raise ValueError("`landmark_weight` needs a transform that is searched: rigid, affine or bspline")
        return self

    @model_validator(mode="after")
    def _can_be_ordered(self) -> Register:
        for name, moving in self.moving.items():
            seen = {name}
            while moving.via is not None:
                if moving.via not in self.moving:
                    raise ValueError(f"`via` of `{name}` leads to `{moving.via}`, which is no moving role")
                if moving.via in seen:
                    raise ValueError(f"`via` of `{name}` leads back to `{moving.via}`")
                seen.add(moving.via)
                moving = self.moving[moving.via]
        return self

    @property
    def roles(self) -> list[str]:
        """The fixed role, then the moving ones."""
        return [self.fixed, *self.moving]

    @property
    def masks(self) -> dict[str, str]:
        """Which mask says where to look: role -> name of the mask."""
        named = {self.fixed: self.fixed_mask, **{role: moving.mask for role, moving in self.moving.items()}}
        return {role: mask for role, mask in named.items() if mask is not None}

    @property
    def in_order(self) -> list[str]:
        """The moving roles, each behind the one that it goes via."""
        return sorted(self.moving, key=self._steps)

    @property
    def without_files(self) -> Register:
        """The same without the names of parameter files, for those who have read them."""
        moving = {role: own.model_copy(update={"parameters": None}) for role, own in self.moving.items()}
        return self.model_copy(update={"parameters": None, "moving": moving})

    def settings(self, role: str) -> Moving:
        """How a moving role is moved, with what the section says for all filled in."""
        own = self.moving[role]
        transform = own.transform or self.transform
        inherited_weight = self.landmark_weight if transform in SEARCHED else 0.0
        weight = inherited_weight if own.landmark_weight is None else own.landmark_weight
        # parameters belong to a transform: a role with a transform of its own does not inherit them
        inherited = self.parameters if own.transform in (None, self.transform) else None
        filled = {"transform": transform, "parameters": own.parameters or inherited, "landmark_weight": weight}
        return own.model_copy(update=filled)

    def _steps(self, role: str) -> int:
        via = self.moving[role].via
        return 0 if via is None else 1 + self._steps(via)
