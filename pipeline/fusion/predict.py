"""The stage `fuse`: aligned images in; calibrated probabilities of labels and of the case's class out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from monai.transforms import Transform
from torch import Tensor

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.resample import GRID_AFFINE, GRID_SHAPE, onto_grid
from pipeline.fusion.tiles import TiledInferer, not_looked_at
from pipeline.label_measures import label_measures
from pipeline.volumes import affine_of, volume

Data = Mapping[Hashable, Any]


class Calibrated(Protocol):
    """What turns logits into calibrated probabilities.

    Attributes:
        name: of the method.
        record: how it came to be: `to_json` gives its `data`, `cases`, `source` and `date`.
    """

    name: str
    record: Any

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
        UsageError: E_MODALITY when `roles` names a modality that was never trained or a role that the run does not
            know, when one role would be two modalities, or the run has none of them.
    """
    strangers = [name for name in roles if name not in modalities]
    trained = ", ".join(modalities)
    if strangers:
        raise UsageError("E_MODALITY", f"Expected modalities of the network ({trained}), got {strangers[0]}.")
    unknown = [role for role in roles.values() if role not in known]
    if unknown:
        raise UsageError("E_MODALITY", f"Expected roles of the run ({', '.join(known)}), got {unknown[0]}.")
    found = [roles.get(name, name) for name in modalities]
    twice = [role for role in found if found.count(role) > 1]
    if twice:
        raise UsageError("E_MODALITY", f"Expected a role of its own for each of {trained}, got {twice[0]} twice.")
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

    Raises:
        UsageError: E_CONFIG when the inferer's engine cannot run the network on its device.
        CaseError: E_MISSING_ROLE when the only modality that a network of `single` looks at is missing.
    """

    def __init__(self, network: FusionNet, inferer: TiledInferer) -> None:
        self.network, self.inferer = network, inferer
        inferer.check(network)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Predict."""
        only = self.network.modalities[self.network.only]
        if self.network.mode == "single" and not bool(data["available"][self.network.only]):
            raise CaseError("E_MISSING_ROLE", f"Expected {only}, which alone the network looks at, got none.")
        device = next(self.network.parameters()).device
        image = data["image"].as_tensor()[None].to(device)
        body = data["body"].as_tensor()[None] if "body" in data else None
        table = data["table"][None].to(device) if "table" in data else None
        logits = self.inferer(image, self.network, data["available"][None].to(device), body, table)[0]
        return {**data, "pred": logits.cpu()}


class FusedOutputsd(Transform):
    """Make of `pred` what the stage writes: `fused_probability`, `fused_label` and `fused_class`, and measures.

    They lie on the grid that the images came on: probabilities are calibrated where the network saw the images, brought
    back linearly, and only then made labels.

    Args:
        modalities: of the network.
        labels: how many voxel labels; 0 for none.
        classes: how many classes; 0 for none.
        label_names: of the labels above 0; `label_1` … when empty.
        class_names: of the classes; `class_0` … when empty.
        voxel_calibration: of the voxel logits; without it the probabilities are the network's own, and it says so.
        class_calibration: of the class logits, likewise.
        pooling: how the class of a case was made, in words.
        sees: the modalities that the network looks at; all when empty.

    Raises:
        UsageError: E_NAMES when there are other names than labels or classes.
    """

    def __init__(  # noqa: PLR0913 - each is one line of a bundle's postprocessing
        self,
        modalities: Sequence[str],
        labels: int,
        classes: int,
        label_names: Sequence[str] = (),
        class_names: Sequence[str] = (),
        voxel_calibration: Calibrated | None = None,
        class_calibration: Calibrated | None = None,
        pooling: str = "",
        sees: Sequence[str] = (),
    ) -> None:
        self.modalities, self.labels, self.classes = tuple(modalities), labels, classes
        self.sees = tuple(sees or modalities)
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
        there = zip(self.modalities, data["available"].tolist(), strict=True)
        seen = [name for name, is_there in there if is_there and name in self.sees]
        measures: dict[str, Any] = {**(case.get("measures") or {}), "fused_modalities": ", ".join(seen)}
        if self.labels:
            measures |= self._voxels(case, pred)
        if self.classes:
            logits = pred[self.labels :, 0, 0, 0]
            measures |= self._class(case, logits)
        case["measures"] = measures
        return case

    def _voxels(self, case: dict[Hashable, Any], pred: Tensor) -> dict[str, Any]:
        logits = pred[: self.labels]
        inside = probabilities_of(logits, self.voxel_calibration)
        # a calibration knows what the network says; beyond the body it has said nothing
        sure = torch.eye(self.labels)[0][:, None, None, None]
        found = volume(torch.where(not_looked_at(logits), sure, inside), affine_of(case["image"]))
        affine, shape = (case[key].numpy() for key in (GRID_AFFINE, GRID_SHAPE))
        chances = onto_grid(found, affine, shape)
        case["fused_probability"] = chances
        case["fused_label"] = volume(chances.as_tensor().argmax(0, keepdim=True).to(torch.uint8), affine)
        values = {name: number for number, name in enumerate(self.label_names, 1)}
        measured = label_measures("fused_label", case["fused_label"], values, "fusion network")
        return {
            **measured,
            "fused_label_calibrated": self.voxel_calibration is not None,
            "fused_label_calibration": calibration_in_words(self.voxel_calibration),
        }

    def _class(self, case: dict[Hashable, Any], logits: Tensor) -> dict[str, Any]:
        chances = probabilities_of(logits[None], self.class_calibration, axis=1)[0].tolist()
        named = {name: round(chance, 6) for name, chance in zip(self.class_names, chances, strict=True)}
        likely = self.class_names[chances.index(max(chances))]
        calibrated = self.class_calibration is not None
        case["fused_class"] = {
            "class": likely,
            "probabilities": named,
            "logits": [round(number, 6) for number in logits.tolist()],
            "calibrated": calibrated,
            "calibration": calibration_in_words(self.class_calibration),
            "pooling": self.pooling,
        }
        return {
            "fused_class": likely,
            "fused_class_probability": max(named.values()),
            "fused_class_calibrated": calibrated,
            "fused_class_calibration": calibration_in_words(self.class_calibration),
            **{f"fused_class_{name}_probability": chance for name, chance in named.items()},
        }


def prepare_whole(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, None, tuple[Tensor | None, ...], dict[str, Any]]:
    """What MONAI's evaluator gives to the inferer: the image, what is available, the body, and the table's numbers."""
    image, available = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "available"))
    table = batch["table"].to(device, non_blocking=non_blocking) if "table" in batch else None
    return image, None, (available, batch["body"], table), {}


def calibration_in_words(calibration: Calibrated | None) -> str:
    """What stands beside a probability: the calibration's method, data, cases and date, or that there is none."""
    if calibration is None:
        return "not calibrated"
    record = calibration.record.to_json()
    return f"calibrated by {calibration.name}: {record['data']}, {record['cases']} cases, {record['date']}"


def probabilities_of(logits: Tensor, calibration: Calibrated | None, axis: int = 0) -> Tensor:
    """Calibrated probabilities; without a calibration the network's own, of which it is then said."""
    if calibration is None:
        return torch.softmax(logits.double(), axis).float()
    return torch.as_tensor(calibration.apply(logits)).float().clamp(0, 1)


def _names(given: Sequence[str], otherwise: Sequence[str]) -> tuple[str, ...]:
    if given and (len(given) != len(otherwise) or len(set(given)) < len(given)):
        raise UsageError("E_NAMES", f"Expected {len(otherwise)} different names, got {', '.join(given)}.")
    return tuple(given or otherwise)
