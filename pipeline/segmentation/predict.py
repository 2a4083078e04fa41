"""Predict as nnU-Net does, with its functions and without its loop: once loaded, float32 sums, little memory.

Arrays are nnU-Net's: (C, z, y, x). Logits are averaged over tiles (Gaussian weights), mirror images and folds, then
resampled, and only then made probabilities: softmax of labels, sigmoid of regions. Beyond the box around what is not 0
all is background.

Source: Isensee et al., nnU-Net, Nature Methods 18, 2021; nnunetv2 2.8.1, `nnUNetPredictor` and `export_prediction`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.errors import CaseError, UsageError
from pipeline.inference.engine import AsTuple, Engine, Task, compiled, require_engine, require_processor
from pipeline.inference.thin import for_single_tiles
from pipeline.inference.tiles import Box, TileSum, groups, mirrored
from pipeline.segmentation.model import Model
from pipeline.segmentation.nnunet import (
    compute_gaussian,
    compute_steps_for_sliding_window,
    convert_labelmap_to_one_hot,
    determine_num_input_channels,
    pad_nd_image,
    remove_all_but_largest_component_from_segmentation,
)

Array = npt.NDArray[Any]
#: A region is where its probability is above this. Source: nnU-Net.
REGION_FROM = 0.5
MEMORY_FLAG = "N_MEMORY: the device's memory was too small for the whole image: sums of tiles were kept beside it"
#: Of a volume, that are worked on at once where heads are compared: what is beside them stays small.
SLICES = 16


class Calibrated(Protocol):
    """What turns logits into calibrated probabilities.

    Attributes:
        in_words: the method, and on what it was fitted.
    """

    in_words: str

    def apply(self, logits: Any) -> Any:
        """Probabilities of a volume (C, z, y, x)."""


@dataclass(frozen=True)
class Predicted:
    """What a model says of an image, on the image's grid.

    Attributes:
        labels: (z, y, x), uint8 or uint16.
        entropy: (z, y, x) float32: 0 where it is sure, 1 where all labels are as likely; the largest of the regions'.
        probabilities: (heads, z, y, x) float32, where they were asked for.
        flags: what a reader has to know.
    """

    labels: Array
    entropy: Array
    probabilities: Array | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """A model, and how images go through it.

    Attributes:
        model: loaded.
        step: from one tile to the next, as a part of its side: above 0, at most 1.
        mirror: average over the mirror images that the model has learned.
        engine: `torch`, or `openvino` on a processor.
        bfloat16: count in bfloat16 on a processor: faster where it can, and a little less exact.
        batch: tiles at once.

    Raises:
        UsageError: E_CONFIG for a step, a batch or an engine that cannot be; E_EXTRA where the engine is not installed.
    """

    model: Model
    step: float = 0.5
    mirror: bool = True
    engine: Engine = "torch"
    bfloat16: bool = False
    batch: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1 or self.batch < 1:
            raise UsageError("E_CONFIG", f"Expected a step in (0, 1] and a batch, got {self.step:g} and {self.batch}.")
        require_engine(self.engine)
        if self.engine == "openvino":
            require_processor(next(iter(self.model.networks.values())))

    def __call__(
        self,
        image: Array,
        spacing_mm: tuple[float, ...],
        probabilities: bool = False,
        calibration: Calibrated | None = None,
    ) -> Predicted:
        """Predict.

        Args:
            image: (C, z, y, x), the model's channels in its order.
            spacing_mm: along z, y, x.
            probabilities: whether they are wanted: a float32 volume for each label.
            calibration: of the logits; labels are then those of the calibrated probabilities.

        Raises:
            CaseError: E_BLANK for an image of zeros.
        """
        model = self.model
        if model.partners:
            return self._ensemble(image, spacing_mm, probabilities, calibration)
        before = None
        if model.previous is not None:
            before = replace(self, model=model.previous)(image, spacing_mm).labels
        data, properties = prepare(model, image, spacing_mm, before)
        logits, flags = self.logits(data)
        del data  # a large image's answer needs the room
        found = outcome(model, logits, properties, probabilities, calibration)
        return Predicted(found.labels, found.entropy, found.probabilities, flags)

    def _ensemble(
        self, image: Array, spacing_mm: tuple[float, ...], probabilities: bool, calibration: Calibrated | None
    ) -> Predicted:
        """Models' probabilities are averaged, where folds' logits are: nnU-Net's rule.

        Raises:
            UsageError: E_CAL_NETWORK for a calibration, which is fitted on one model's logits.
        """
        if calibration is not None:
            raise UsageError("E_CAL_NETWORK", "Expected no calibration for an ensemble of models, got one.")
        models = (replace(self.model, partners=()), *self.model.partners)
        each = [replace(self, model=model)(image, spacing_mm, probabilities=True) for model in models]
        mean = torch.from_numpy(np.mean([np.asarray(found.probabilities) for found in each], axis=0))
        sure = mean.clamp(torch.finfo(torch.float32).tiny, 1)
        regions = self.model.labels.has_regions
        order = self.model.dataset.get("regions_class_order", [])
        label, entropy = _regions(iter(mean.logit(1e-7)), order) if regions else _largest(iter(sure.log()))
        labels = _kept(self.model, label.numpy().astype(each[0].labels.dtype))
        flags = tuple(dict.fromkeys(flag for found in each for flag in found.flags))
        return Predicted(labels, entropy.numpy(), mean.numpy() if probabilities else None, flags)

    @torch.inference_mode()
    def logits(self, data: Array) -> tuple[Tensor, tuple[str, ...]]:
        """The logits (heads, z, y, x) float32 of an image that was prepared, on its grid, and flags."""
        image, device = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)), self.model.device
        try:
            return self._mean_of_folds(image.to(device), device, self.batch), ()
        except torch.OutOfMemoryError:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return self._mean_of_folds(image, torch.device("cpu"), batch=1), (MEMORY_FLAG,)

    def _mean_of_folds(self, image: Tensor, beside: torch.device, batch: int) -> Tensor:
        total: Tensor | None = None
        for fold, network in self.model.networks.items():
            found = self._tiled(image, self._forward(fold, network), beside, batch)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(self.model.networks)).cpu()

    def _tiled(self, image: Tensor, forward: Any, beside: torch.device, batch: int) -> Tensor:
        """The Gaussian mean of all tiles, kept where `beside` says; nnU-Net's places, padding and weights."""
        model = self.model
        padded, inner = pad_nd_image(image, model.patch, "constant", {"value": 0}, True, None)
        weight = compute_gaussian(model.patch, 1 / 8, 10, torch.float32, beside)
        total = TileSum(model.labels.num_segmentation_heads, padded.shape[1:], weight)
        axes = [axis + 2 for axis in model.mirror_axes] if self.mirror else []
        for group in groups(list(_boxes(padded.shape[1:], model.patch, self.step)), batch):
            tiles = torch.stack([padded[(slice(None), *box)] for box in group]).to(model.device)
            total.add(group, mirrored(forward, tiles, axes).to(beside))
        return total.mean()[(slice(None), *inner[1:])]

    def _forward(self, fold: str, network: nn.Module) -> Any:
        """What looks at tiles (B, C, …) with a fold's network: logits (B, heads, …), float32."""
        if self.engine == "openvino":
            model = self.model
            inputs = determine_num_input_channels(model.plans, model.configuration, dict(model.dataset))
            example = torch.randn((1, inputs, *model.patch), generator=torch.Generator().manual_seed(0))
            task = Task(model.digests[fold], ("image",), ("logits",), AsTuple(network), (example,), self.bfloat16)
            look = compiled(task)
            return lambda tiles: look(tiles)[0]
        cuda = self.model.device.type == "cuda"
        kind = torch.float16 if cuda else torch.bfloat16  # on CUDA as nnU-Net does
        looking = self._looking[fold]

        def forward(tiles: Tensor) -> Tensor:
            with torch.autocast(tiles.device.type, kind, enabled=cuda or self.bfloat16):
                found: Tensor = looking(tiles)
            return found.float()

        return forward

    @functools.cached_property
    def _looking(self) -> Mapping[str, nn.Module]:
        """Fold -> its network, as PyTorch looks at tiles with it."""
        exact = self.model.device.type == "cpu" and not self.bfloat16
        return {fold: for_single_tiles(item) if exact else item for fold, item in self.model.networks.items()}


def prepare(
    model: Model, image: Array, spacing_mm: tuple[float, ...], before: Array | None = None
) -> tuple[Array, dict[str, Any]]:
    """Crop, normalise and resample an image by nnU-Net's own preprocessing.

    Args:
        model: whose plans.
        image: (C, z, y, x).
        spacing_mm: along z, y, x.
        before: of a cascade: the labels (z, y, x) of its first stage.

    Returns:
        What the network sees, (C, z, y, x) float32, and nnU-Net's properties, with which its answer finds the way back.

    Raises:
        CaseError: E_BLANK for an image of zeros, which has no box around what is not 0.
    """
    if not np.any(image):
        raise CaseError("E_BLANK", "Expected an image with values other than 0, got none.")
    properties: dict[str, Any] = {"spacing": [float(side) for side in spacing_mm]}
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    seg = None if before is None else before[None].astype(np.int16)
    data, seg, properties = preprocessor.run_case_npy(
        image, seg, properties, model.plans, model.configuration, dict(model.dataset)
    )
    if before is not None:
        data = np.vstack((data, convert_labelmap_to_one_hot(seg[0], model.labels.foreground_labels, data.dtype)))
    return data, properties


def outcome(
    model: Model,
    logits: Tensor,
    properties: dict[str, Any],
    probabilities: bool = False,
    calibration: Calibrated | None = None,
) -> Predicted:
    """Labels, entropy and probabilities on the image's grid, of logits (heads, z, y, x) on the network's.

    Where no volume of all heads is asked for, heads are resampled one by one, and only their largest is kept.

    Raises:
        UsageError: E_CAL_CLASSES for a calibration of a model of regions, which overlap.
    """
    regions = model.labels.has_regions
    if calibration is not None and regions:
        raise UsageError("E_CAL_CLASSES", "Expected no calibration for a model of regions, which overlap, got one.")
    heads = _resampled(model, logits, properties)
    stacked: Tensor | None = None
    if probabilities or calibration is not None:
        stacked = torch.stack(list(heads))
        if calibration is not None:
            stacked = torch.log_softmax(stacked, 0)  # what a calibration is fitted on out of fold
            stacked = torch.as_tensor(np.asarray(calibration.apply(stacked.numpy()), dtype=np.float32)).clamp_(0, 1)
            heads = iter(stacked.clamp(min=torch.finfo(torch.float32).tiny).log_())
        else:
            heads = iter(stacked)
    found, entropy = _regions(heads, model.dataset["regions_class_order"]) if regions else _largest(heads)
    if stacked is not None and calibration is None:
        stacked = stacked.sigmoid_() if regions else torch.softmax(stacked, 0)
    kind = np.uint8 if max(model.label_names.values(), default=0) <= 255 else np.uint16
    labels = _kept(model, _uncropped(model, found.numpy().astype(kind), properties))
    chances = None
    if probabilities and stacked is not None:
        background = [0.0 if regions or number else 1.0 for number in range(len(stacked))]
        chances = np.stack(
            [_uncropped(model, item.numpy(), properties, fill) for item, fill in zip(stacked, background, strict=True)]
        )
    return Predicted(labels, _uncropped(model, entropy.numpy(), properties), chances)


def _boxes(shape: tuple[int, ...], patch: tuple[int, ...], step: float) -> Iterator[Box]:
    """nnU-Net's tiles over an image (z, y, x); of a 2d model, over every slice."""
    flat = len(shape) - len(patch)
    starts = compute_steps_for_sliding_window(tuple(shape[flat:]), patch, step)
    for slices in itertools.product(*(range(side) for side in shape[:flat])):
        for corner in itertools.product(*starts):
            yield (*slices, *(slice(at, at + side) for at, side in zip(corner, patch, strict=True)))


def _resampled(model: Model, logits: Tensor, properties: dict[str, Any]) -> Iterator[Tensor]:
    """Each head's logits (z, y, x) at the voxel size of the image, within its crop."""
    shape = properties["shape_after_cropping_and_before_resampling"]
    spacing = [properties["spacing"][axis] for axis in model.plans.transpose_forward]
    own = model.configuration.spacing
    current = own if len(own) == len(shape) else [spacing[0], *own]
    for number in range(len(logits)):
        found = model.configuration.resampling_fn_probabilities(logits[number : number + 1], shape, current, spacing)
        yield torch.as_tensor(found)[0].float()


def _largest(heads: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """The label with the largest logit, and the entropy of the softmax over all, of heads that come one by one."""
    best = next(heads).clone()
    label = torch.zeros(best.shape, dtype=torch.int16)
    total, weighted, count = torch.ones_like(best), best.clone(), 1
    for number, logit in enumerate(heads, start=1):
        for parts in zip(*(item.split(SLICES) for item in (logit, best, label, total, weighted)), strict=True):
            _add_head(number, *parts)
        count += 1
    weighted.div_(total)
    return label, best.add_(total.log_()).sub_(weighted).div_(math.log(max(2, count))).clamp_(0, 1)


def _add_head(number: int, logit: Tensor, best: Tensor, label: Tensor, total: Tensor, weighted: Tensor) -> None:
    """One more head of some slices: the sums of exp(logit), and of it times the logit, both over exp(best)."""
    label[logit > best] = number
    top = torch.maximum(best, logit)
    shrink, part = (best - top).exp_(), (logit - top).exp_()
    total.mul_(shrink).add_(part)
    weighted.mul_(shrink).addcmul_(part, logit)
    best.copy_(top)


def _regions(heads: Iterator[Tensor], order: list[int]) -> tuple[Tensor, Tensor]:
    """The labels with which regions are drawn one over the other, and the largest of their entropies."""
    label: Tensor | None = None
    entropy = torch.zeros(())
    for value, logit in zip(order, heads, strict=True):
        chance = torch.sigmoid(logit)
        label = torch.zeros(logit.shape, dtype=torch.int32) if label is None else label
        label[chance > REGION_FROM] = value
        own = torch.special.entr(chance) + torch.special.entr(1 - chance)
        entropy = torch.maximum(entropy, own / math.log(2))
    assert label is not None
    return label, entropy.clamp(0, 1)


def _kept(model: Model, labels: Array) -> Array:
    """Labels (z, y, x) after nnU-Net's postprocessing, where the model has one."""
    for step in model.postprocessing:
        labels = remove_all_but_largest_component_from_segmentation(labels, step)
    return labels


def _uncropped(model: Model, values: Array, properties: dict[str, Any], outside: float = 0) -> Array:
    """Values (z, y, x) of the crop in the whole image, its axes as they came."""
    whole = np.full(properties["shape_before_cropping"], outside, dtype=values.dtype)
    whole[tuple(slice(*sides) for sides in properties["bbox_used_for_cropping"])] = values
    return whole.transpose(model.plans.transpose_backward)
