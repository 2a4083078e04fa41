"""A trained model: nnU-Net's results folder as networks on a device, loaded once. No code of the folder's is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.inference.engine import weights_sha256
from pipeline.segmentation.nnunet import (
    ConfigurationManager,
    LabelManager,
    PlansManager,
    determine_num_input_channels,
    get_network_from_plans,
    remove_all_but_largest_component_from_segmentation,
)
from pipeline.segmentation.weights import CHECKPOINT, ENSEMBLE, load_checkpoint, read_json, unchanged
from pipeline.segmentation.workspace import TANDEM
from pipeline.spec.roles import role_of

#: Where the networks of plans may come from: plans name classes, and a class that they name is called.
NETWORKS = ("dynamic_network_architectures.", "pipeline.segmentation.twins.")
#: And what their settings may name.
LAYERS = ("torch.nn.", "dynamic_network_architectures.")
#: Where the axes I, J, K of a model's images run, unless its `tandem.json` says otherwise.
ORIENTATION = "RAS"


class Configuration(ConfigurationManager):
    """A configuration for prediction: the mask of what is not 0, which prediction has no use for, is not resampled."""

    @property
    def resampling_fn_seg(self) -> Any:
        """What stands in its place where there is no segmentation of an earlier stage."""
        return _as_it_is if self.previous_stage_name is None else super().resampling_fn_seg


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        plans: nnU-Net's.
        configuration: of them, the one that was trained.
        dataset: `dataset.json`: channels and labels in their order.
        networks: fold -> its network, evaluating.
        mirror_axes: along which it has learned mirror images (of z, y, x); empty: along none.
        about: `tandem.json`: `label_map`, `channels` (roles), `orientation` …; empty where there is none.
        previous: of a cascade: the model of its first stage.
        postprocessing: nnU-Net's: labels or regions of which only the largest piece is kept, each step's in turn.
        partners: of an ensemble: the models with whose probabilities its own are averaged.
    """

    plans: PlansManager
    configuration: Configuration
    dataset: Mapping[str, Any]
    networks: Mapping[str, nn.Module]
    mirror_axes: tuple[int, ...]
    about: Mapping[str, Any]
    previous: Model | None = None
    postprocessing: tuple[Any, ...] = ()
    partners: tuple[Model, ...] = ()

    @cached_property
    def labels(self) -> LabelManager:
        """nnU-Net's: which labels or regions there are, and how logits become them."""
        return self.plans.get_label_manager(dict(self.dataset))

    @property
    def channels(self) -> list[str]:
        """The roles of the channels, in the model's order."""
        return channels_of(self.dataset, self.about)

    @property
    def label_names(self) -> dict[str, int]:
        """Name -> value of every label above 0; of regions the value with which each is drawn."""
        known = {name: value for name, value in self.dataset["labels"].items() if name not in ("background", "ignore")}
        if self.labels.has_regions:
            return dict(zip(known, self.dataset["regions_class_order"], strict=True))
        return {name: value if isinstance(value, int) else value[0] for name, value in known.items()}

    @property
    def heads(self) -> list[str]:
        """What each channel of the probabilities is of: labels with the background first, or regions."""
        return [*([] if self.labels.has_regions else ["background"]), *self.label_names]

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels of a tile along (z, y, x), or (y, x) of a 2d model."""
        return tuple(self.configuration.patch_size)

    @property
    def orientation(self) -> str:
        """Where the axes I, J, K of the images run that it has learned from."""
        return str(self.about.get("orientation", ORIENTATION))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(next(iter(self.networks.values())).parameters()).device

    @cached_property
    def digests(self) -> dict[str, str]:
        """Fold -> the digest of its weights."""
        return {fold: weights_sha256(network) for fold, network in self.networks.items()}


def channels_of(dataset: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    """The roles of a model's channels, in order: of `tandem.json`, else made of the names in `dataset.json`."""
    named = dataset.get("channel_names") or dataset["modality"]
    made = [role_of(str(named[key])) for key in sorted(named, key=int)]
    names = list(about.get("channels") or made)
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]


def described(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model's folder says of it: `dataset.json`, and `tandem.json` where there is one."""
    about = read_json(folder / TANDEM) if (folder / TANDEM).is_file() else {}
    return read_json(folder / "dataset.json"), about


def load_model(folder: str | Path, folds: Sequence[int | str] = (), device: str | torch.device = "cpu") -> Model:
    """Load a model.

    Args:
        folder: nnU-Net's results folder of one configuration, or what `tandem weights add` has made of it.
        folds: whose networks are averaged: numbers or `all`; empty: every fold that is there.
        device: where to.

    Raises:
        UsageError: E_WEIGHTS for a file that is not there or not safe, or for weights of another architecture than the
            plans'; E_FOLD for a fold that was not trained; E_EXTRA where nnU-Net is not installed.
    """
    folder = Path(folder)
    plans, (dataset, about) = PlansManager(read_json(folder / "plans.json")), described(folder)
    chosen = [str(fold) for fold in folds] or _folds_in(folder)
    checkpoints = {fold: load_checkpoint(_checkpoint(folder, fold)) for fold in chosen}
    first = next(iter(checkpoints.values()))
    name = str(first["init_args"]["configuration"])
    if name not in plans.available_configurations:
        raise UsageError("E_WEIGHTS", f"Expected the plans to have the configuration {name}, got none of this name.")
    configuration = Configuration(plans.get_configuration(name).configuration)
    networks = {
        fold: _network(plans, configuration, dataset, item["network_weights"], fold).to(device)
        for fold, item in checkpoints.items()
    }
    axes = first.get("inference_allowed_mirroring_axes")
    before = configuration.previous_stage_name
    previous = load_model(unchanged(_beside(folder, name, before)), folds, device) if before else None
    partners = tuple(load_model(unchanged(path), folds, device) for path in partners_of(folder))
    mirrors, steps = tuple(axes or ()), _steps(folder)
    return Model(plans, configuration, dataset, networks, mirrors, about, previous, steps, partners)


def build_network(plans: PlansManager, configuration: ConfigurationManager, dataset: Mapping[str, Any]) -> nn.Module:
    """The network that plans describe, without weights, whatever trainer it was trained by.

    Raises:
        UsageError: E_WEIGHTS when they name a class that is no network or layer of nnU-Net's, PyTorch's or Tandem's.
    """
    imports = configuration.network_arch_init_kwargs_req_import
    settings = configuration.network_arch_init_kwargs
    named = [settings[key] for key in imports if settings.get(key) is not None]
    for name, places in ((configuration.network_arch_class_name, NETWORKS), *((name, LAYERS) for name in named)):
        if not str(name).startswith(places):
            raise UsageError("E_WEIGHTS", f"Expected plans with a network of {' or '.join(places)}…, got {name}.")
    channels = determine_num_input_channels(plans, configuration, dict(dataset))
    heads = plans.get_label_manager(dict(dataset)).num_segmentation_heads
    arguments = (configuration.network_arch_class_name, settings, imports, channels, heads)
    network: nn.Module = get_network_from_plans(*arguments, allow_init=False, deep_supervision=False)
    return network


def _network(
    plans: PlansManager, configuration: Configuration, dataset: Mapping[str, Any], weights: Any, fold: str
) -> nn.Module:
    network = build_network(plans, configuration, dataset)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        what = f"Expected weights of the network that the plans describe, in fold {fold}, got those of another."
        raise UsageError("E_WEIGHTS", what) from error
    return network.eval().requires_grad_(False)


def _folds_in(folder: Path) -> list[str]:
    """The folds that are there: the numbered ones, else `all`."""
    found = _trained_folds(folder)
    numbered = [name for name in found if name.isdigit()]
    if not found:
        raise UsageError("E_WEIGHTS", f"Expected folds with {CHECKPOINT} in {folder.name}, got none.")
    return numbered or found


def _trained_folds(folder: Path) -> list[str]:
    return sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{CHECKPOINT}"))


def _checkpoint(folder: Path, fold: str) -> Path:
    path = folder / f"fold_{fold}" / CHECKPOINT
    if not path.is_file():
        there = ", ".join(_trained_folds(folder)) or "none"
        raise UsageError("E_FOLD", f"Expected one of the model's folds ({there}), got {fold}.")
    return path


def _beside(folder: Path, name: str, before: str) -> Path:
    """The folder of a cascade's first stage: its sibling."""
    found = folder.with_name(folder.name.removesuffix(name) + before)
    if not found.is_dir():
        raise UsageError("E_WEIGHTS", f"Expected the cascade's first stage beside it, in {found.name}, got none.")
    return found


def partners_of(folder: Path) -> list[Path]:
    """The folders of an ensemble's other models, beside its own (`ensemble.json`, which evaluate.yaml writes).

    Raises:
        UsageError: E_WEIGHTS when one is not there.
    """
    path = folder / ENSEMBLE
    found = [folder.resolve().parent / str(name) for name in (read_json(path)["with"] if path.is_file() else ())]
    if gone := [item.name for item in found if item.parent != folder.resolve().parent or not item.is_dir()]:
        raise UsageError("E_WEIGHTS", f"Expected the ensemble's other model {gone[0]} beside it, got none.")
    return found


def _steps(folder: Path) -> tuple[Any, ...]:
    """What nnU-Net has found to be worth keeping the largest piece of (`postprocessing.json`)."""
    path = folder / "postprocessing.json"
    found = read_json(path) if path.is_file() else {"postprocessing_fns": [], "postprocessing_kwargs": []}
    strange = {*found["postprocessing_fns"]} - {remove_all_but_largest_component_from_segmentation.__name__}
    if strange:
        raise UsageError("E_WEIGHTS", f"Expected a postprocessing that keeps largest pieces, got {min(strange)}.")
    return tuple(step["labels_or_regions"] for step in found["postprocessing_kwargs"])


def _as_it_is(array: Any, *_: Any, **__: Any) -> Any:
    return array
