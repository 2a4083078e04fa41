"""What the sections of a data spec ask of its roles and masks. Each raises a ValueError that says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.spec.stages import SEGMENT_LABEL, wrong_channel

if TYPE_CHECKING:
    from pipeline.spec.spec import Spec


def segment_is_whole(spec: Spec) -> None:
    """What the section `segment` names is there, and is named as nnU-Net takes it."""
    if spec.segment is None:
        return
    for role, name in spec.segment.channels.items():
        if role not in spec.roles:
            raise ValueError(f"`segment` has the channel `{role}`, which `roles` does not define")
        if wrong := wrong_channel(role, name, spec.roles[role].modality[0]):
            raise ValueError(f"`segment`: {wrong}")
    if spec.segment.label and spec.segment.label not in spec.masks:
        raise ValueError(f"`segment` learns `{spec.segment.label}`, which `masks` does not define")


def radiomics_is_whole(spec: Spec) -> None:
    """What the section `radiomics` names is there, and is measured in a mask."""
    if spec.radiomics_ is None:
        return
    for mask in spec.radiomics_.masks:
        if mask not in spec.measurable_masks:
            raise ValueError(f"`radiomics` measures in `{mask}`, which `masks` does not define with labels")
    known = {label for values in spec.mask_labels.values() for label in values}
    for label in spec.radiomics_.labels:
        if label not in known and SEGMENT_LABEL not in spec.measurable_masks:
            raise ValueError(f"`radiomics` measures the label `{label}`, which no mask has")
    for role in spec.radiomics_.images:
        if role not in spec.roles:
            raise ValueError(f"`radiomics` measures the role `{role}`, which `roles` does not define")
        if not spec.measured_in(role):
            raise ValueError(f"`radiomics` measures `{role}`, but no mask is of it, or is aligned with it")


def fuse_image_is_whole(spec: Spec) -> None:
    """What the section `fuse_image` names is there: one CT in HU and one MR."""
    found = (("CT", spec.fuse_image.ct), ("MR", spec.fuse_image.mr)) if spec.fuse_image else ()
    for modality, role in found:
        if role not in spec.roles:
            raise ValueError(f"`fuse_image` has the role `{role}` as {modality}, which `roles` does not define")
        if spec.modalities[role] != modality:
            got = f"which is of {spec.modalities[role]}; `fuse_image.roles` says which role is CT, and which MR"
            raise ValueError(f"`fuse_image` has the role `{role}` as {modality}, {got}")
        if modality == "CT" and role not in spec.hounsfield_ct:
            raise ValueError(f"`fuse_image` has windows in HU, but the role `{role}` is in {spec.roles[role].unit}")
        if spec.register_ and role not in (spec.fixed, *spec.moving):
            raise ValueError(f"`fuse_image` has the role `{role}`, which `register` does not align")


def sounds_are_files(spec: Spec) -> None:
    """Pictures and sounds are what they can be: sounds are files, and nothing registers or masks one of both."""
    for role in spec.of_kind("sound"):
        if spec.roles[role].files is None:
            raise ValueError(f"the role `{role}` is a sound, which DICOM does not have: it needs `files`")
    for role in spec.of_kind("image", "sound"):
        if spec.register_ and role in (spec.fixed, *spec.moving):
            raise ValueError(f"`register` has the role `{role}`, which is no volume but one of the `streams`")
        if role in {mask.of for mask in spec.masks.values()}:
            raise ValueError(f"a mask is of the role `{role}`, which is no volume but one of the `streams`")
