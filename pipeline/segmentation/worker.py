"""What runs in nnU-Net's own process (`python -m pipeline.segmentation`): planning, training, the best configuration.

It loads no MONAI, which takes longer than all else of a short task.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import PipelineError, UsageError, pipeline_cause
from pipeline.segmentation.model import build_network
from pipeline.segmentation.splits import ALL, SPLITS
from pipeline.segmentation.weights import CHECKPOINT, ENSEMBLE, allowed_globals, describe, load_checkpoint
from pipeline.segmentation.workspace import FOR_NEXT, PLANS, TANDEM, TRAINER, next_stages

#: Preset -> nnU-Net's planner.
PLANNERS = {
    "default": "ExperimentPlanner",
    "resenc_m": "nnUNetPlannerResEncM",
    "resenc_l": "nnUNetPlannerResEncL",
    "resenc_xl": "nnUNetPlannerResEncXL",
    "torchres": "nnUNetPlanner_torchres",
    "small": "ExperimentPlanner",
}
#: Of the preset `small`: features of the stages, and the longest side of a patch.
SMALL_FEATURES, SMALL_SIDE = (16, 32, 64), 64
#: Files that nnU-Net expects beside the preprocessed cases, and what Tandem keeps with a model.
KEPT = ("dataset.json", SPLITS, TANDEM)


def plan(  # noqa: PLR0913 - each is a setting of plan.yaml
    dataset: str,
    preset: str,
    plans: str,
    configurations: Sequence[str],
    network: str = "unet",
    patch: Sequence[int] = (),
    batch: int = 0,
    pretrained: str = "",
    processes: int = 1,
) -> list[str]:
    """Find the data set's fingerprint, plan, and preprocess; the configurations that there are.

    Raises:
        UsageError: E_NO_CASES; E_CONFIG for a configuration that the plans do not have, or a patch that cannot be.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )
    from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
        move_plans_between_datasets,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    number, place = int(dataset[7:10]), Path(nnUNet_preprocessed) / dataset
    for name in KEPT:
        if (Path(nnUNet_raw) / dataset / name).is_file():
            shutil.copyfile(Path(nnUNet_raw) / dataset / name, place / name)
    extract_fingerprint_dataset(number, num_processes=processes, clean=False, verbose=False, show_progress_bar=False)
    base = PLANS[preset]
    if preset == "pretrained":
        source = json.loads((Path(pretrained) / "plans.json").read_text(encoding="utf-8"))
        moved = Path(nnUNet_preprocessed) / source["dataset_name"] / f"{base}_source.json"
        moved.parent.mkdir(exist_ok=True)
        moved.write_text(json.dumps(source), encoding="utf-8")
        move_plans_between_datasets(source["dataset_name"], dataset, moved.stem, base)
        moved.unlink()
    else:
        import nnunetv2

        places = str(Path(nnunetv2.__path__[0]) / "experiment_planning"), "nnunetv2.experiment_planning"
        planner = recursive_find_python_class(places[0], PLANNERS[preset], current_module=places[1])
        plan_experiment_dataset(number, planner, overwrite_plans_name=base)
    found = json.loads((place / f"{base}.json").read_text(encoding="utf-8"))
    kept = [name for name in configurations if name in found["configurations"]]
    if not kept:
        what = f"Expected one of the plans' configurations ({', '.join(found['configurations'])})"
        raise UsageError("E_CONFIG", f"{what}, got {', '.join(configurations)}.")
    for name in kept:
        _adapt(found["configurations"], name, preset, network, patch, batch)
    found["plans_name"] = plans
    (place / f"{plans}.json").write_text(json.dumps(found, indent=4), encoding="utf-8")
    preprocess_dataset(number, plans, kept, [processes] * len(kept), show_progress_bar=False)
    return kept


def _adapt(
    configurations: dict[str, Any], name: str, preset: str, network: str, patch: Sequence[int], batch: int
) -> None:
    """Make a configuration small, of another network, or of another patch and batch."""
    own = configurations[name]
    if "architecture" not in own:  # a cascade's second stage inherits it
        return
    arguments = own["architecture"]["arch_kwargs"]
    if preset == "small":
        stages = min(len(SMALL_FEATURES), arguments["n_stages"])
        arguments |= {"n_stages": stages, "features_per_stage": list(SMALL_FEATURES[:stages])}
        arguments |= {key: arguments[key][:stages] for key in ("kernel_sizes", "strides", "n_conv_per_stage")}
        arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: stages - 1]
        own["patch_size"] = [min(side, SMALL_SIDE) for side in own["patch_size"]]
        own["batch_size"] = 2
    own["patch_size"] = [int(side) for side in patch] or own["patch_size"]
    own["batch_size"] = batch or own["batch_size"]
    steps = _steps(arguments["strides"], network)
    own["patch_size"] = [-(-side // step) * step for side, step in zip(own["patch_size"], steps, strict=True)]
    if network != "unet":
        kind = {"dynunet": "DynUNet", "segresnet": "SegResNet"}[network]
        kept = {key: arguments[key] for key in ("features_per_stage", "kernel_sizes", "strides")}
        own["architecture"] = {
            "network_class_name": f"pipeline.segmentation.twins.{kind}",
            "arch_kwargs": kept,
            "_kw_requires_import": [],
        }


def _steps(strides: Sequence[Sequence[int]], network: str) -> list[int]:
    """What a patch's sides are multiples of: all strides together; SegResNet halves along every axis."""
    if network == "segresnet":
        return [2 ** (len(strides) - 1)] * len(strides[0])
    return [math.prod(sides) for sides in zip(*strides, strict=True)]


def train(
    dataset: str,
    plans: str,
    configuration: str,
    fold: int | str,
    pretrained: str = "",
    device: str = "cpu",
) -> str:
    """Train one fold; one that is done is not trained again. Gives what became of it, in a word.

    Raises:
        UsageError: E_WEIGHTS for pretrained weights of another shape, before training; E_NAN_LOSS.
    """
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
    from nnunetv2.run.run_training import run_training
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    place = Path(nnUNet_preprocessed) / dataset
    model = Path(nnUNet_results) / dataset / f"{TRAINER}__{plans}__{configuration}"
    folder = model / f"fold_{fold}"
    manager, trained = PlansManager(str(place / f"{plans}.json")), (folder / CHECKPOINT).is_file()
    last = fold == ALL or not next_stages(manager, configuration, place)
    if trained and (last or (folder / FOR_NEXT).is_file()):
        return "was done"
    weights = None
    if pretrained and not trained:
        labels = json.loads((place / "dataset.json").read_text(encoding="utf-8"))
        network = build_network(manager, manager.get_configuration(configuration), labels)
        weights = _fitting(Path(pretrained), network)
    goes_on = any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best"))
    torch.serialization.add_safe_globals(allowed_globals())
    torch.set_num_threads(max(1, torch.get_num_threads()))
    run_training(
        dataset,
        configuration,
        fold,
        TRAINER,
        plans,
        pretrained_weights=str(weights) if weights and not goes_on else None,
        continue_training=goes_on and not trained,
        only_run_validation=trained,  # what the next stage learns from is not yet there
        device=torch.device(device),
    )
    if trained and (model / TANDEM).is_file():
        return "was done, but for what the next stage learns from"
    kept = place / TANDEM
    describe(model, json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {})
    return "went on" if goes_on else "trained"


def _fitting(pretrained: Path, network: torch.nn.Module) -> Path | None:
    """The checkpoint of a pretrained model whose weights fit a network, but for its last layers; None for no model.

    Raises:
        UsageError: E_WEIGHTS.
    """
    if not pretrained.parts:
        return None
    checkpoints = sorted(pretrained.glob(f"fold_*/{CHECKPOINT}"))
    if not checkpoints:
        raise UsageError("E_WEIGHTS", f"Expected a fold with {CHECKPOINT} in {pretrained.name}, got none.")
    theirs = load_checkpoint(checkpoints[0])["network_weights"]
    for name, value in network.state_dict().items():
        if ".seg_layers." not in name and (name not in theirs or theirs[name].shape != value.shape):
            what = f"Expected pretrained weights of the planned network, got others: {name} differs."
            remedy = "Plan with the pretrained model's own plans: `preset: pretrained` in plan.yaml."
            raise UsageError("E_WEIGHTS", what, remedy)
    return checkpoints[0]


def best(
    dataset: str, models: Sequence[Sequence[str]], folds: Sequence[int], ensembles: bool, processes: int = 1
) -> dict[str, Any]:
    """nnU-Net's best configuration and its postprocessing, of out-of-fold predictions; kept with the models.

    Args:
        dataset: its name.
        models: plans and configuration of each.
        folds: that were predicted.
        ensembles: whether pairs of models are tried, too.
        processes: that it may spawn.
    """
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration
    from nnunetv2.paths import nnUNet_results

    candidates = [{"plans": plans, "configuration": name, "trainer": TRAINER} for plans, name in models]
    found = find_best_configuration(dataset, candidates, ensembles, processes, True, tuple(folds))
    chosen = found["best_model_or_ensemble"]
    names = [
        f"{item['trainer']}__{item['plans_identifier']}__{item['configuration']}"
        for item in chosen["selected_model_or_models"]
    ]
    steps = Path(chosen["postprocessing_file"]).with_suffix(".json")
    for plans, name in models:
        (Path(nnUNet_results) / dataset / f"{TRAINER}__{plans}__{name}" / ENSEMBLE).unlink(missing_ok=True)
    for number, name in enumerate(names):
        model = Path(nnUNet_results) / dataset / name
        shutil.copyfile(steps, model / steps.name)
        if len(names) > 1 and not number:
            (model / ENSEMBLE).write_text(json.dumps({"with": names[1:]}), encoding="utf-8")
        describe(model, json.loads((model / TANDEM).read_text(encoding="utf-8")))
    results = Path(nnUNet_results) / dataset
    for path in (*results.glob("inference_*"), *results.glob("*/crossval_results_*"), *results.glob("ensembles")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()  # they name the machine's folders
    scores = {key: chosen[f"result_on_crossval_{key}"] for key in ("pre_pp", "post_pp")}
    return {"models": names, "dice": scores, "all": found["all_results"]}


TASKS: dict[str, Callable[..., Any]] = {"plan": plan, "train": train, "best": best}


def main(task: str, answer: str) -> int:
    """Do a task, and write what came of it."""
    try:
        found: dict[str, Any] = {"result": TASKS[task](**json.load(sys.stdin))}
    except Exception as error:
        known: PipelineError | None = pipeline_cause(error)
        if known is None:
            raise
        found = {"code": known.code, "message": known.message, "remedy": known.remedy}
    Path(answer).write_text(json.dumps(found, default=float), encoding="utf-8")
    return 2 if "code" in found else 0
