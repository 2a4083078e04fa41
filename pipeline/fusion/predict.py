"""The stage `fuse`: aligned images in; calibrated probabilities of labels and of the case's class out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from monai.transforms import Transform
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import TiledInferer
from pipeline.geometry import FloatArray, affine_of, volume
from pipeline.labels import label_measures

Data = Mapping[Hashable, Any]


class Calibrated(Protocol):
    """What turns logits into calibrated probabilities."""

    def apply(self, logits: Any) -> Any:
        """Probabilities of rows (N, C) or of a volume (C, I, J, K)."""


def roles_of(modalities: Sequence[str], known: Sequence[str], roles: Mapping[str, str]) -> list[str]:
    """Which role of the run shows each modality of the network.

    Args:
        modalities: of the network.
        known: roles of the data spec.
        roles: modality -> role, where they have other names.

    Returns:
        A role for each modality, in order; the modality's own name where the run has none: it is then missing.

    Raises:
        UsageError: E_MODALITY when `roles` names a modality that was never trained, or the run has none of them.
    """
    strangers = [name for name in roles if name not in modalities]
    trained = ", ".join(modalities)
    if strangers:
        raise UsageError("E_MODALITY", f"Expected modalities of the network ({trained}), got {strangers[0]}.")
    found = [roles.get(name, name) for name in modalities]
    if not set(found) & set(known):
        raise UsageError("E_MODALITY", f"Expected a role for one of {trained}, got the roles {', '.join(known)}.")
    return found


class NameModalitiesd(Transform):
    """Give images the names of the network's modalities.

    Args:
        keys: of the images in the run.
        names: of the modalities, in the same order.
    """

    def __init__(self, keys: Sequence[str], names: Sequence[str]) -> None:
        self.names = dict(zip(keys, names, strict=True))

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Rename."""
        others = {key: value for key, value in data.items() if key not in self.names}
        return {**others, **{name: data[key] for key, name in self.names.items() if key in data}}


class Predictd(Transform):
    """Add `pred`, the network's logits (labels + classes, I, J, K) of the whole image.

    Args:
        network: on its device.
        inferer: how tiles are made and put together.
    """

    def __init__(self, network: FusionNet, inferer: TiledInferer) -> None:
        self.network, self.inferer = network, inferer

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Predict."""
        device = next(self.network.parameters()).device
        image = data["image"].as_tensor()[None].to(device)
        body = data["body"].as_tensor()[None] if "body" in data else None
        logits = self.inferer(image, self.network, data["available"][None].to(device), body)[0]
        return {**data, "pred": logits.cpu()}


class FusedOutputsd(Transform):
    """Make of `pred` what the stage writes: `fused_probability`, `fused_label` and `fused_class`, and measures.

    They lie on the grid of `image`.

    Args:
        modalities: of the network.
        labels: how many voxel labels; 0 for none.
        classes: how many classes; 0 for none.
        label_names: of the labels above 0; `label_1` … when empty.
        class_names: of the classes; `class_0` … when empty.
        voxel_calibration: of the voxel logits; without it the probabilities are the network's own, and it says so.
        class_calibration: of the class logits, likewise.
        pooling: how the class of a case was made, in words.

    Raises:
        UsageError: E_NAMES when there are other names than labels or classes.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        labels: int,
        classes: int,
        label_names: Sequence[str] = (),
        class_names: Sequence[str] = (),
        voxel_calibration: Calibrated | None = None,
        class_calibration: Calibrated | None = None,
        pooling: str = "",
    ) -> None:
        self.modalities, self.labels, self.classes = tuple(modalities), labels, classes
        self.label_names = _names(label_names, [f"label_{value}" for value in range(1, labels)])
        self.class_names = _names(class_names, [f"class_{number}" for number in range(classes)])
        self.voxel_calibration, self.class_calibration, self.pooling = voxel_calibration, class_calibration, pooling

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        voxels = {"fused_probability": "probability", "fused_label": "label"} if self.labels else {}
        return {**voxels, **({"fused_class": "measure"} if self.classes else {})}

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Make the outputs."""
        case, pred = dict(data), torch.as_tensor(data["pred"]).as_subclass(Tensor)
        seen = [name for name, there in zip(self.modalities, data["available"].tolist(), strict=True) if there]
        measures: dict[str, Any] = {**(case.get("measures") or {}), "fused_modalities": ", ".join(seen)}
        if self.labels:
            measures |= self._voxels(case, pred, affine_of(case["image"]))
        if self.classes:
            logits = pred[self.labels :, 0, 0, 0]
            measures |= self._class(case, logits)
        case["measures"] = measures
        return case

    def _voxels(self, case: dict[Hashable, Any], pred: Tensor, affine: FloatArray) -> dict[str, Any]:
        logits = pred[: self.labels]
        chances = _probabilities(logits, self.voxel_calibration)
        case["fused_probability"] = volume(chances, affine)
        case["fused_label"] = volume(chances.argmax(0, keepdim=True).to(torch.uint8), affine)
        values = {name: number for number, name in enumerate(self.label_names, 1)}
        found = label_measures("fused_label", case["fused_label"], values, "fusion network")
        return {**found, "fused_label_calibrated": self.voxel_calibration is not None}

    def _class(self, case: dict[Hashable, Any], logits: Tensor) -> dict[str, Any]:
        chances = _probabilities(logits[None], self.class_calibration, axis=1)[0].tolist()
        named = {name: round(chance, 6) for name, chance in zip(self.class_names, chances, strict=True)}
        likely = self.class_names[chances.index(max(chances))]
        calibrated = self.class_calibration is not None
        case["fused_class"] = {
            "class": likely,
            "probabilities": named,
            "logits": [round(number, 6) for number in logits.tolist()],
            "calibrated": calibrated,
            "pooling": self.pooling,
        }
        return {
            "fused_class": likely,
            "fused_class_probability": max(named.values()),
            "fused_class_calibrated": calibrated,
        }


def prepare_whole(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, None, tuple[Tensor, Tensor], dict[str, Any]]:
    """What MONAI's evaluator gives to the inferer: the image, what is available, and the body."""
    image, available = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "available"))
    return image, None, (available, batch["body"]), {}


def _probabilities(logits: Tensor, calibration: Calibrated | None, axis: int = 0) -> Tensor:
    if calibration is None:
        return torch.softmax(logits.double(), axis).float()
    return torch.as_tensor(calibration.apply(logits)).float().clamp(0, 1)


def _names(given: Sequence[str], otherwise: Sequence[str]) -> tuple[str, ...]:
    if given and (len(given) != len(otherwise) or len(set(given)) < len(given)):
        raise UsageError("E_NAMES", f"Expected {len(otherwise)} different names, got {', '.join(given)}.")
    return tuple(given or otherwise)
