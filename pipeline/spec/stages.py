"""What a data spec says of the stages `segment`, `radiomics`, `fuse_image` and `fuse`: a section for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from pipeline.shipped import shipped_model
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


#: The labels of the segmentation network, as `masks` names them.
SEGMENT_LABEL = "segment_label"


class Radiomics(Model):
    """What is measured of a run's cases: original intensities, on the images' own grids.

    Attributes:
        images: role -> how its image is prepared and what is measured: presets' names, or those of `configurations`.
        masks: in which masks; none: in all that have labels, and in what a segmentation network has found.
        labels: which of the masks' labels; none: all.
        configurations: name -> settings, over those of a preset where they name one:
            docs/reference/radiomics.md has every key.
        robustness: whether features are measured in perturbed versions, too, and how well they agree is told; keys with
            values say how regions are perturbed.
    """

    images: dict[str, tuple[str, ...]] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    configurations: dict[str, dict[str, Any]] = Field(default={})
    robustness: StrictBool | dict[str, Any] = False

    @field_validator("images", mode="before")
    @classmethod
    def _listed(cls, images: Any) -> Any:
        """One name needs no list."""
        if not isinstance(images, dict):
            return images
        return {role: (names,) if isinstance(names, str) else names for role, names in images.items()}


NETWORK = "network"
#: What stands in where no weights are named: it needs none.
UNLEARNED = "atrous"
#: Level and width in HU: from fat to spongy bone. All that is denser is white.
WINDOW = (150.0, 500.0)
Method = Literal["ct", "mr", "mean", "max", "gradient", "laplacian", "atrous", "guided", "network"]


class FuseImage(Model):
    """Which images become one picture, and by what.

    Attributes:
        roles: `ct` and `mr` -> role, where they have other names; both lie on one grid once they are aligned.
        method: a name of `pipeline.image_fusion.baselines.BASELINES`, or `network`; none: the network where weights are
            named, else `atrous`, and every record and report says so.
        windows: level and width in HU; CT is fused as the first shows it, and a network looks at the others, too. None:
            those that the network has learned with, or `WINDOW`.
        weights: what `train.yaml` has written; by its path, or by its name alone where it comes with Tandem
            (bundles/fuse_image/models).
        sha256: the expected hash of the weights; not asked when empty.
        engine: what runs the network.
    """

    roles: dict[Literal["ct", "mr"], str] = Field(default={})
    method: Method | None = None
    windows: tuple[tuple[StrictFloat, StrictFloat], ...] = ()
    weights: str = ""
    sha256: str = ""
    engine: Literal["torch", "openvino"] = "torch"

    @model_validator(mode="after")
    def _is_whole(self) -> FuseImage:
        if wrong := wrong_recipe(self.method or "", self.windows, self.weights, self.sha256, self.engine):
            raise ValueError(wrong)
        return self

    @property
    def ct(self) -> str:
        """The role that is CT."""
        return self.roles.get("ct", "ct")

    @property
    def mr(self) -> str:
        """The role that is MR."""
        return self.roles.get("mr", "mr")

    @property
    def file(self) -> str:
        """The path of the weights; empty where there are none."""
        return shipped_model("fuse_image", self.weights)


def chosen(method: str, weights: str) -> str:
    """The method that is used: the one that is named, else the network where there are weights, else `UNLEARNED`."""
    return method or (NETWORK if weights else UNLEARNED)


def wrong_recipe(
    method: str, windows: Sequence[Sequence[float]], weights: str, sha256: str, engine: str = "torch"
) -> str:
    """What does not go together, in words; empty where all does."""
    used = chosen(method, weights)
    if used == NETWORK and not weights:
        return "`method` is network, but no `weights` are named"
    if used != NETWORK and weights:
        return f"`weights` are named, but `method` is {used}, which has none"
    if sha256 and not weights:
        return "`sha256` is named, but no `weights` are"
    if engine != "torch" and used != NETWORK:
        return f"`engine` is {engine}, but {used} is no network: it needs none"
    if used != NETWORK and len(windows) > 1:
        return f"`windows` are {len(windows)}, but {used} looks at CT in one"
    return wrong_windows(windows)


def wrong_windows(windows: Iterable[Sequence[float]]) -> str:
    """Which window is none, in words; empty where all are."""
    wrong = next((window for window in windows if len(window) != 2 or not window[1] > 0), None)
    return "" if wrong is None else f"`windows` are a level and a width above 0 each, got {list(wrong)}"


class Fuse(Model):
    """Which network looks at the cases, and which names its answers have.

    Files are named by their path, or by their name alone where they come with Tandem (bundles/fuse/models).

    Attributes:
        weights: what `train.yaml` has written.
        class_calibration: what `calibrate.yaml` has written; without it probabilities are the network's own, and every
            record and report says so.
        voxel_calibration: likewise.
        table_file: a CSV with `case_id` and the further numbers that the network was trained with;
            `radiomics_by_case.csv` is what the run's own stage `radiomics` has written.
        roles: modality of the network -> role, where they have other names.
        class_names: of the classes, in order.
        label_names: of the labels above 0.
        explain: maps of why, each at a cost of its own.
        engine: what runs the network.
        bfloat16_on_cpu: whether processors count in bfloat16, too.
    """

    weights: str = ""
    class_calibration: str = ""
    voxel_calibration: str = ""
    table_file: str = ""
    roles: dict[str, str] = Field(default={})
    class_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    explain: tuple[Literal["gradcam", "gates", "occlusion"], ...] = ()
    engine: Literal["torch", "openvino"] = "torch"
    bfloat16_on_cpu: StrictBool = False

    def file(self, key: str, run: str | Path = "") -> str:
        """The path of a file: `file("weights")`; empty where the section names none.

        Args:
            key: of the section.
            run: a run folder in which a file named by its name alone is looked for, too, such as the table of features.
        """
        return shipped_model("fuse", str(getattr(self, key)), *([Path(run)] if str(run) else []))
