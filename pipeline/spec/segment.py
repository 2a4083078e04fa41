"""The `segment` section of a data spec: which images and labels train a network (nnU-Net), and which model segments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator

from pipeline.spec.explain import Model

#: Names of channels that say how nnU-Net normalises them, whatever their case; every other name is a z-score.
#: Source: nnunetv2/preprocessing/normalization/map_channel_name_to_normalization.py.
NORMALISATIONS = ("ct", "nonorm", "zscore", "rescale_to_0_1", "rgb_to_0_1")

Fold = Annotated[StrictInt, Field(ge=0)] | Literal["all"]


class Segment(Model):
    """What a network of nnU-Net sees of a case, what it learns, and which one segments a run's cases.

    Attributes:
        model: which model segments: a name that `tandem weights list` shows, or a folder; empty: none, the section
            serves conversion alone.
        channels: role -> name of the channel, in the network's order; the name says how it is normalised.
        label: the mask that is learned.
        regions: name -> labels of the mask, from the outermost to the innermost; none: every label for itself.
        ignore: the label whose voxels are not learned.
        calibration: what the calibrate bundle has written; empty: the model's own, where it has one.
        folds: which of the model's folds predict, averaged; none: all that it has.
        engine: what runs the network.
        step: of the sliding window, as a part of the patch.
        mirroring: whether mirrored images are predicted too, along the axes that the model was trained with.
        bfloat16_on_cpu: whether processors count in bfloat16, too.
    """

    model: str = ""
    channels: dict[str, str] = Field(min_length=1)
    label: str = ""
    regions: dict[str, tuple[str, ...]] = Field(default={})
    ignore: str = ""
    calibration: str = ""
    folds: tuple[Fold, ...] = ()
    engine: Literal["torch", "openvino"] = "torch"
    step: StrictFloat = Field(default=0.5, gt=0, le=1)
    mirroring: StrictBool = True
    bfloat16_on_cpu: StrictBool = False

    @field_validator("channels")
    @classmethod
    def _named(cls, channels: dict[str, str]) -> dict[str, str]:
        if not all(name.strip() for name in channels.values()):
            raise ValueError("every channel needs a name, such as CT, zscore or T1")
        return channels


def wrong_channel(role: str, name: str, modality: str) -> str:
    """What is wrong with the name of the channel that shows a role; empty where nothing is."""
    plain = name.casefold()
    if modality == "CT" and plain not in NORMALISATIONS:
        return f"the CT role `{role}` is named `{name}`: nnU-Net would not take it as HU; name it CT, or zscore"
    if modality != "CT" and plain == "ct":
        return f"`{role}` is {modality}, but named `{name}`: nnU-Net would normalise it as HU"
    return ""
