"""The `fuse_image` section of a data spec: how CT and MR become one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, StrictFloat, model_validator

from pipeline.shipped import shipped_model
from pipeline.spec.explain import Model

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
