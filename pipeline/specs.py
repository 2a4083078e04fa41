"""Read and check a data spec: which series of a study play which role, and how the roles belong together.

The format is explained, key by key, in docs/reference/data-specs.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UsageError
from pipeline.storage import write_atomic, write_text

Orientation = Literal["axial", "coronal", "sagittal", "any"]
SPEC_FILE = "spec.yaml"
#: What radiologists set to read most of the body: name -> level and width in HU.
CT_WINDOWS = {"soft_tissue": (40.0, 400.0), "bone": (600.0, 2800.0)}
ROLE_NAME = r"^[a-z][a-z0-9_]*$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Model):
    """One condition on one header value.

    Attributes:
        tag: the DICOM keyword, such as `SeriesDescription`.
        matches: a regular expression that is found in the value (several values are joined by a backslash).
        min: the smallest number that is accepted.
        max: the largest number that is accepted.
    """

    tag: str
    matches: str | None = None
    min: float | None = None
    max: float | None = None

    @field_validator("matches")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Rule:
        if (self.matches is None) == (self.min is None and self.max is None):
            raise ValueError("a rule needs either `matches`, or `min` and/or `max`")
        return self


class Role(_Model):
    """What a series has to be to play a role.

    Attributes:
        modality: the accepted values of Modality (0008,0060).
        unit: what the voxel values are (`HU`, `a.u.`, `Bq/ml` …); shown in reports.
        required: without it the case is quarantined.
        orientation: the plane of the slices.
        min_instances: the fewest slices.
        all: every rule has to hold.
        any: at least one rule has to hold.
        none: no rule may hold.
        prefer: what decides when several series are left; without it the case is quarantined as ambiguous.
    """

    modality: tuple[str, ...]
    unit: str = "a.u."
    required: bool = True
    orientation: Orientation = "any"
    min_instances: int = Field(default=2, ge=2)
    all: tuple[Rule, ...] = ()
    any: tuple[Rule, ...] = ()
    none: tuple[Rule, ...] = ()
    prefer: Literal["most_instances"] | None = None

    @field_validator("modality", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Limits(_Model):
    """When a registration passes, and when it is only a warning; what is left out keeps its default.

    The fields and their defaults are those of `pipeline.registration.quality.QualityLimits`.
    """

    start_disagreement_pass_mm: float | None = Field(default=None, gt=0)
    start_disagreement_warn_mm: float | None = Field(default=None, gt=0)
    nmi_noise: float | None = Field(default=None, ge=0)
    nmi_least: float | None = Field(default=None, ge=1)
    overlap_dice_pass: float | None = Field(default=None, ge=0, le=1)
    overlap_dice_warn: float | None = Field(default=None, ge=0, le=1)
    peak_pass: float | None = Field(default=None, ge=0, le=1)

    @property
    def given(self) -> dict[str, float]:
        """The limits that the spec names."""
        return self.model_dump(exclude_none=True)


class Register(_Model):
    """Which role stays in place and which ones are moved onto it."""

    fixed: str
    moving: tuple[str, ...] = Field(min_length=1)
    limits: Limits = Limits()

    @property
    def roles(self) -> list[str]:
        """The fixed role, then the moving ones."""
        return [self.fixed, *self.moving]


class Spec(_Model):
    """A data spec.

    Attributes:
        case: what one case is: all of a patient, one study, or one series.
        ct_windows: name -> level and width in HU in which CT is prepared; reports show CT in the first.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str
    case: Literal["patient", "study", "series"] = "patient"
    roles: dict[str, Role] = Field(min_length=1)
    register_: Register | None = Field(default=None, alias="register")
    ct_windows: dict[str, tuple[float, float]] = Field(default=CT_WINDOWS, min_length=1)

    @field_validator("roles")
    @classmethod
    def _names(cls, roles: dict[str, Role]) -> dict[str, Role]:
        for name in roles:
            if not re.match(ROLE_NAME, name) or name in ("case_id", "records", "flags", "measures", "fault"):
                raise ValueError(f"`{name}` cannot name a role: use lower-case letters, digits and _")
        return roles

    @model_validator(mode="after")
    def _roles_exist(self) -> Spec:
        if self.register_ is not None:
            for role in (self.register_.fixed, *self.register_.moving):
                if role not in self.roles:
                    raise ValueError(f"`register` names the role `{role}`, which `roles` does not define")
            if self.register_.fixed in self.register_.moving:
                raise ValueError(f"`register` has `{self.register_.fixed}` as fixed and as moving")
        return self

    @property
    def registration(self) -> Register:
        """The `register` section.

        Raises:
            UsageError: E_SPEC when the spec has none.
        """
        if self.register_ is None:
            raise UsageError(
                "E_SPEC", f"The data spec {self.name} has no `register` section: nothing says what is fixed."
            )
        return self.register_

    @property
    def modalities(self) -> dict[str, str]:
        """The (first) modality of each role."""
        return {name: role.modality[0] for name, role in self.roles.items()}

    @property
    def ct_window(self) -> tuple[float, float]:
        """Level and width in HU in which reports show CT."""
        return next(iter(self.ct_windows.values()))

    @property
    def fixed(self) -> str:
        """The role that gives the grid: the fixed one, or the first where nothing is registered."""
        return self.register_.fixed if self.register_ else next(iter(self.roles))

    @property
    def moving(self) -> list[str]:
        """The roles that are moved; none where nothing is registered."""
        return list(self.register_.moving) if self.register_ else []

    def of_modality(self, modality: str) -> list[str]:
        """The roles of a modality."""
        return [name for name, role in self.roles.items() if role.modality[0] == modality]

    def aligned(self, roles: Sequence[str]) -> list[str]:
        """The keys of roles' images after registration: `<role>_aligned` for those that were moved."""
        return [f"{name}_aligned" if name in self.moving else name for name in roles]

    def kinds(self, roles: Sequence[str], kind: str, optional: bool = False) -> dict[str, str]:
        """What a stage reads or writes for roles.

        Args:
            roles: role names, or the keys of their aligned images.
            kind: see `pipeline.cases.Kind`.
            optional: nothing of it has to be there.

        Returns:
            key -> kind, with `?` behind it where the role is optional.
        """
        needed = {key for key in roles if self.roles[key.removesuffix("_aligned")].required and not optional}
        return {key: kind if key in needed else f"{kind}?" for key in roles}

    def outputs(self, roles: Sequence[str], optional: bool = False, **kinds: str) -> dict[str, str]:
        """What a stage makes of roles.

        Args:
            roles: role names.
            optional: nothing of it has to be there.
            kinds: suffix -> kind, such as `aligned="image", quality="measure"`.

        Returns:
            Such as `{"mr_aligned": "image", "mr_quality": "measure"}`, with `?` where the role is optional.
        """
        made = {f"{name}_{suffix}": (name, kind) for name in roles for suffix, kind in kinds.items()}
        needed = {key for key, (name, _) in made.items() if self.roles[name].required and not optional}
        return {key: kind if key in needed else f"{kind}?" for key, (_, kind) in made.items()}


def every_volume() -> Spec:
    """The spec that takes every series as a case of its own, in the role `image`."""
    modalities = ("CT", "MR", "PT", "NM", "CR", "DX", "US", "OT", "XA", "RF", "MG")
    role = Role(modality=modalities)
    return Spec(name="every-volume", description="Every volume of the tree.", case="series", roles={"image": role})


def load(path: Path) -> Spec:
    """Read a data spec.

    Raises:
        UsageError: E_SPEC; the message names the key and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("E_SPEC", f"The data spec {path} cannot be read ({error.strerror}).") from error
    try:
        data, root = yaml.safe_load(text), yaml.compose(text)
        return Spec.model_validate(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError("E_SPEC", f"{path}, line {line}: not valid YAML: {error.problem}.") from error
    except ValidationError as error:
        raise UsageError("E_SPEC", "; ".join(_explain(path, root, item) for item in error.errors())) from error


def save(spec: Spec, folder: Path) -> None:
    """Keep the spec with the run, so that later stages work with the same one."""
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=False)
    write_atomic(folder / SPEC_FILE, lambda path: write_text(path, text))


def of_run(spec_file: str | Path, dataset_dir: str | Path) -> Spec:
    """The spec that a bundle works with: the file, else the one that the run in `dataset_dir` was ingested with.

    Raises:
        UsageError: E_SPEC when there is neither.
    """
    if str(spec_file):
        return load(Path(spec_file))
    stored = Path(dataset_dir) / SPEC_FILE
    if stored.is_file():
        return load(stored)
    raise UsageError("E_SPEC", f"Expected a data spec: none was named (--spec_file) and {dataset_dir} holds none.")


def of_ingest(spec_file: str | Path) -> Spec:
    """The spec that ingest works with: the file, or `every_volume` where none is named."""
    return load(Path(spec_file)) if str(spec_file) else every_volume()


def _explain(path: Path, root: yaml.Node | None, error: Any) -> str:
    """One validation error as `file, line n: key: what is wrong`."""
    where = [str(part) for part in error["loc"]]
    line, key = _line_of(root, list(error["loc"])), ".".join(where) or "the spec"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], _keys_beside(where), n=1)
        problem = "unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    elif error["type"] == "missing":
        problem = "this key is missing"
    else:
        problem = error["msg"].removeprefix("Value error, ")
    return f"{path}, line {line}: {key}: {problem}"


def _line_of(node: yaml.Node | None, loc: list[Any]) -> int:
    """The line of the deepest part of `loc` that is in the file, counted from 1."""
    if node is None:
        return 1
    if loc and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(loc[0]):
                return key.start_mark.line + 1 if len(loc) == 1 else _line_of(value, loc[1:])
    if loc and isinstance(node, yaml.SequenceNode) and isinstance(loc[0], int) and loc[0] < len(node.value):
        return _line_of(node.value[loc[0]], loc[1:])
    return int(node.start_mark.line) + 1


def _keys_beside(where: list[str]) -> list[str]:
    """The keys that are known at the place of an unknown one."""
    models: dict[str, type[BaseModel]] = {"roles": Role, "register": Register, "limits": Limits}
    model: type[BaseModel] = Spec
    for part in where[:-1]:
        model = Rule if part in ("any", "all", "none") else models.get(part, model)
    return [field.alias or name for name, field in model.model_fields.items()]
