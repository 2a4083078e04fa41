"""Read and check a data spec: which series of a study play which role, and how the roles belong together.

The format is explained, key by key, in docs/reference/data-specs.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, StrictFloat, ValidationInfo, field_validator, model_validator

from pipeline.errors import UsageError
from pipeline.spec.explain import Model, find_spec, read_model
from pipeline.spec.paths import placeholders
from pipeline.spec.register import Limits, Moving, Register
from pipeline.spec.roles import ARBITRARY, ROLE_NAME, SUV_BODY_WEIGHT, Mask, Role, Rule, plain_unit
from pipeline.spec.stages import SEGMENT_LABEL, Fuse, FuseImage, Radiomics, Segment
from pipeline.spec.streams import Kind, Stream
from pipeline.spec.whole import fuse_image_is_whole, radiomics_is_whole, segment_is_whole, sounds_are_files
from pipeline.store.files import save_text
from pipeline.store.sections import Display
from pipeline.words import in_words

Section = TypeVar("Section", bound=Model)

SPEC_FILE = "spec.yaml"
#: What radiologists set to read most of the body: name -> level and width in HU.
CT_WINDOWS = {"soft_tissue": (40.0, 400.0), "bone": (600.0, 2800.0)}
#: SUV in which PET is shown. Source: usual for FDG, as liver has an SUV of 2 to 3.
SUV_WINDOW = (0.0, 10.0)
RESERVED_NAMES = ("case_id", "records", "flags", "measures", "fault", "frames", "verdict", "sections")


class Spec(Model):
    """A data spec.

    Attributes:
        case: what one case is: all of a patient, one study, or one series.
        ct_windows: name -> level and width in HU in which CT is prepared; reports show CT in the first.
        streams: name -> what a network sees of a case whose inputs share no grid (`pipeline.spec.streams`).
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str
    case: Literal["patient", "study", "series"] = "patient"
    roles: dict[str, Role] = Field(min_length=1)
    masks: dict[str, Mask] = Field(default={})
    register_: Register | None = Field(default=None, alias="register")
    segment: Segment | None = None
    radiomics_: Radiomics | None = Field(default=None, alias="radiomics")
    fuse_image: FuseImage | None = None
    fuse: Fuse | None = None
    ct_windows: dict[str, tuple[StrictFloat, StrictFloat]] = Field(default=CT_WINDOWS, min_length=1)
    streams: dict[str, Stream] = Field(default={})

    @field_validator("roles", "streams")
    @classmethod
    def _names(cls, named: dict[str, Any], about: ValidationInfo) -> dict[str, Any]:
        for name in named:
            if not re.match(ROLE_NAME, name) or name in RESERVED_NAMES:
                what = str(about.field_name).removesuffix("s")
                raise ValueError(f"`{name}` cannot name a {what}: use lower-case letters, digits and _")
        return named

    @model_validator(mode="after")
    def _roles_exist(self) -> Spec:
        if self.register_ is not None:
            for role in (self.register_.fixed, *self.register_.moving):
                if role not in self.roles:
                    raise ValueError(f"`register` names the role `{role}`, which `roles` does not define")
            if self.register_.fixed in self.register_.moving:
                raise ValueError(f"`register` has `{self.register_.fixed}` as fixed and as moving")
            for role, mask in self.register_.masks.items():
                if mask not in self.masks or self.masks[mask].of != role:
                    raise ValueError(f"`register` names the mask `{mask}`, which `masks` does not define for `{role}`")
        return self

    @model_validator(mode="after")
    def _fuse_is_whole(self) -> Spec:
        if self.fuse is not None and not self.fuse.weights:
            raise ValueError("`fuse` names no `weights`")
        for modality, role in self.fusion.roles.items():
            if role not in self.roles:
                raise ValueError(f"`fuse` has the role `{role}` as `{modality}`, which `roles` does not define")
        return self

    @model_validator(mode="after")
    def _sections_are_whole(self) -> Spec:
        for check in (segment_is_whole, radiomics_is_whole, fuse_image_is_whole, sounds_are_files):
            check(self)
        return self

    @model_validator(mode="after")
    def _masks_have_roles(self) -> Spec:
        for name, mask in self.masks.items():
            if not re.match(ROLE_NAME, name) or name in (*RESERVED_NAMES, *self.roles):
                raise ValueError(f"`{name}` cannot name a mask: use lower-case letters, digits, _ and no role's name")
            if mask.of not in self.roles:
                raise ValueError(f"the mask `{name}` is of the role `{mask.of}`, which `roles` does not define")
        return self

    @model_validator(mode="after")
    def _one_input(self) -> Spec:
        entries = {f"roles.{name}": role.files for name, role in self.roles.items()}
        entries |= {f"masks.{name}": mask.files for name, mask in self.masks.items()}
        without = [name for name, pattern in entries.items() if pattern is None]
        if without and len(without) < len(entries):
            raise ValueError(f"`{without[0]}` has no `files`, but others have: all are NIfTI files, or none is")
        if not without and len({placeholders(pattern) for pattern in entries.values() if pattern}) > 1:
            raise ValueError("either every `files` has {session}, or none has")
        marks = {placeholders(pattern) for pattern in self.landmark_files.values()}
        of_images = {placeholders(pattern) for pattern in entries.values() if pattern} or {frozenset({"case"})}
        if marks and marks != of_images:
            raise ValueError("`landmarks` have the {case} and {session} that `files` have; with DICOM, {case} alone")
        if marks and self.case != "patient":
            raise ValueError("`landmarks` are found by the patient: they need `case: patient`")
        if not without and self.case != "patient":
            raise ValueError("`case` is for DICOM: {case} and {session} in `files` say what one case is")
        return self

    @property
    def from_files(self) -> bool:
        """Whether the input is NIfTI files, not DICOM."""
        return all(role.files is not None for role in self.roles.values())

    @property
    def registration(self) -> Register:
        """The `register` section; UsageError E_SPEC where there is none."""
        return self._section(self.register_, "register", "is fixed")

    @property
    def fusion(self) -> Fuse:
        """The `fuse` section; where there is none, one that names nothing."""
        return self.fuse or Fuse()

    @property
    def segmentation(self) -> Segment:
        """The `segment` section; UsageError E_SPEC where there is none."""
        return self._section(self.segment, "segment", "a network sees and learns")

    @property
    def radiomics(self) -> Radiomics:
        """The `radiomics` section; UsageError E_SPEC where there is none."""
        return self._section(self.radiomics_, "radiomics", "is measured")

    @property
    def image_fusion(self) -> FuseImage:
        """The `fuse_image` section; UsageError E_SPEC where there is none."""
        return self._section(self.fuse_image, "fuse_image", "becomes one picture")

    def _section(self, section: Section | None, name: str, what: str) -> Section:
        if section is None:
            lacking = f"The data spec {self.name} has no `{name}` section: nothing says what {what}."
            raise UsageError("E_SPEC", lacking, "Add the section: docs/reference/data-specs.md.")
        return section

    @property
    def measurable_masks(self) -> dict[str, str]:
        """Name of each mask with labels -> the role on whose grid it lies; the segmentation network's, too."""
        found = {name: self.masks[name].of for name in self.mask_labels}
        segmented = self.segment is not None and self.segment.model
        return found | ({SEGMENT_LABEL: self.fixed} if segmented else {})

    def measured_in(self, role: str) -> dict[str, str]:
        """The masks in which the image of a role is measured -> the role of each: its own, or one aligned with it."""
        aligned = (self.fixed, *self.moving)
        wanted = (self.radiomics_.masks if self.radiomics_ else ()) or tuple(self.measurable_masks)
        masks = {name: of for name, of in self.measurable_masks.items() if name in wanted}
        return {name: of for name, of in masks.items() if of == role or {of, role} <= {*aligned}}

    @property
    def landmark_files(self) -> dict[str, str]:
        """Role -> which files of the input hold its landmarks."""
        return self.register_.landmarks if self.register_ else {}

    @property
    def modalities(self) -> dict[str, str]:
        """The (first) modality of each role."""
        return {name: role.modality[0] for name, role in self.roles.items()}

    @property
    def units(self) -> dict[str, str]:
        """The unit of each role."""
        return {name: role.unit for name, role in self.roles.items()}

    @property
    def suv_roles(self) -> list[str]:
        """The roles whose PET is turned into standardised uptake values; those of NIfTI files hold them already."""
        return [name for name, role in self.roles.items() if role.unit == SUV_BODY_WEIGHT and role.files is None]

    @property
    def fixed(self) -> str:
        """The role that gives the grid: the fixed one, or the first where nothing is registered."""
        return self.register_.fixed if self.register_ else next(iter(self.roles))

    @property
    def moving(self) -> list[str]:
        """The roles that are moved; none where nothing is registered."""
        return list(self.register_.moving) if self.register_ else []

    def of_modality(self, modality: str) -> list[str]:
        """The roles of a modality, but for pictures and sounds, whose values are no quantity."""
        volumes = [name for name in self.roles if self.role_kinds[name] == "volume"]
        return [name for name in volumes if self.roles[name].modality[0] == modality]

    @property
    def role_kinds(self) -> dict[str, Kind]:
        """Role -> `volume`, `image` or `sound`: what the stream is that it plays; of no stream, a volume."""
        played = {self.fusion.roles.get(name, name): stream.kind for name, stream in self.streams.items()}
        return {role: played.get(role, "volume") for role in self.roles}

    def of_kind(self, *wanted: Kind) -> list[str]:
        """The roles that are of these kinds."""
        return [role for role, kind in self.role_kinds.items() if kind in wanted]

    @property
    def hounsfield_ct(self) -> list[str]:
        """The CT roles whose values are HU: those that do not say otherwise."""
        return [name for name in self.of_modality("CT") if plain_unit(self.roles[name].unit) in {*ARBITRARY, "hu"}]

    @property
    def weighted_mr(self) -> list[str]:
        """The MR roles in arbitrary units: no filter and no normalisation touches a map of a quantity."""
        return [name for name in self.of_modality("MR") if plain_unit(self.roles[name].unit) in ARBITRARY]

    @property
    def needed(self) -> frozenset[str]:
        """The roles and masks without which a case is set aside."""
        roles = {name for name, role in self.roles.items() if role.required}
        return frozenset(roles | {name for name, mask in self.masks.items() if mask.required and mask.of in roles})

    @property
    def displays(self) -> dict[str, Display]:
        """How the image of each role is shown: CT in the first window, SUV from 0, all others by percentiles."""
        shown = self.of_kind("volume", "image")
        return {name: Display(name, in_words(name), self.roles[name].unit, self._window(name)) for name in shown}

    def _window(self, name: str) -> tuple[float, float] | None:
        if name in self.hounsfield_ct:
            level, width = next(iter(self.ct_windows.values()))
            return level - width / 2, level + width / 2
        return SUV_WINDOW if self.roles[name].unit == SUV_BODY_WEIGHT else None

    @property
    def mask_roles(self) -> dict[str, str]:
        """Name of each mask -> the role that it is of."""
        return {name: mask.of for name, mask in self.masks.items()}

    @property
    def mask_labels(self) -> dict[str, dict[str, int]]:
        """Name of each mask -> its labels and their values; not of a mask that says where registration looks."""
        searched = set(self.register_.masks.values()) if self.register_ else set()
        return {name: mask.label_values for name, mask in self.masks.items() if name not in searched}

    @property
    def may_be_left_out(self) -> bool:
        """Whether later stages go on without a moving role whose alignment has failed."""
        return self.register_ is not None and self.register_.on_fail == "flag"


def kinds(names: Iterable[str], kind: str, needed: Collection[str]) -> dict[str, str]:
    """What is made of roles or masks: key -> kind, with `?` behind it where it may be missing."""
    return {name: kind if name in needed else f"{kind}?" for name in names}


def every_volume() -> Spec:
    """The spec that takes every series as a case of its own, in the role `image`."""
    modalities = ("CT", "MR", "PT", "NM", "CR", "DX", "US", "OT", "XA", "RF", "MG")
    role = Role(modality=modalities)
    return Spec(name="every-volume", description="Every volume of the tree.", case="series", roles={"image": role})


def load_spec(path: str | Path) -> Spec:
    """Read a data spec: a file, or a shipped one by its name.

    Raises:
        UsageError: E_SPEC; the message names the key and the line.
    """
    return read_model(find_spec(path), Spec, "data spec", "E_SPEC", _keys_beside)


def save_spec(spec: Spec, folder: Path) -> None:
    """Keep the spec with the run, so that later stages work with the same one."""
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=False)
    save_text(folder / SPEC_FILE, text)


def of_run(spec_file: str | Path, dataset_dir: str | Path) -> Spec:
    """The spec that a bundle works with: the file, else the one that the run in `dataset_dir` was ingested with.

    Raises:
        UsageError: E_SPEC when there is neither.
    """
    if str(spec_file):
        return load_spec(spec_file)
    stored = Path(dataset_dir) / SPEC_FILE
    if stored.is_file():
        return load_spec(stored)
    there = "holds none" if Path(dataset_dir).is_dir() else "is no folder"
    what = f"Expected a data spec: none was named (--spec_file) and {dataset_dir} {there}."
    raise UsageError("E_SPEC", what, "Name one, or the folder that ingest has filled; ingest comes first.")


def keep_spec(spec: Spec, folder: Path) -> None:
    """Let the later stages of a run work with a spec, in the place of the one that it was ingested with.

    Raises:
        UsageError: E_SPEC when the folder holds no spec, or the new one asks ingest for something else.
    """
    stored = of_run("", folder)
    for part, attribute in {"case": "case", "roles": "roles", "masks": "masks", "landmarks": "landmark_files"}.items():
        if getattr(spec, attribute) != getattr(stored, attribute):
            what = f"Expected the `{part}` with which {folder} was ingested, got others in the data spec {spec.name}."
            raise UsageError("E_SPEC", what, "Run ingest as well (leave --stages out), or into another folder.")
    save_spec(spec, folder)


def of_ingest(spec_file: str | Path) -> Spec:
    """The spec that ingest works with: the file, or `every_volume` where none is named."""
    return load_spec(spec_file) if str(spec_file) else every_volume()


def _keys_beside(where: list[str]) -> list[str]:
    """The keys that are known at the place of an unknown one."""
    models: dict[str, type[BaseModel]] = {"roles": Role, "masks": Mask, "register": Register, "fuse": Fuse}
    models |= {"segment": Segment, "radiomics": Radiomics, "fuse_image": FuseImage, "streams": Stream}
    models |= {"moving": Moving, "limits": Limits, **dict.fromkeys(("any", "all", "none"), Rule)}
    model: type[BaseModel] = Spec
    for part in where[:-1]:
        model = models.get(part, model)
    return [field.alias or name for name, field in model.model_fields.items()]
