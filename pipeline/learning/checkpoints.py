"""Handlers of a training: draws that depend on the epoch alone, frozen encoders, checkpoints, curves, the end."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler
from torch import nn
from torch.utils.hooks import RemovableHandle

from pipeline.errors import UsageError
from pipeline.learning.checkpoint_file import (
    PREPARATION,
    TRAINING_CASES,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from pipeline.learning.transfer import freeze
from pipeline.store.files import save_text

LAST, BEST, CURVES = "last.pt", "model.pt", "curves.csv"


class SeedEpochs:
    """Seed all chance at the start of each epoch: a training that was resumed is the one that never stopped."""

    def __init__(self, seed: int, dataset: Any, sampler: Any) -> None:
        self.seed, self.dataset, self.sampler = seed, dataset, sampler

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed."""
        epoch = engine.state.epoch
        number = int(np.random.SeedSequence([self.seed, epoch, get_rank()]).generate_state(1)[0])
        torch.manual_seed(number)
        self.dataset.transform.set_random_state(number)
        self.sampler.set_epoch(epoch)


class ValidateEpochs(ValidationHandler):
    """Validate every `interval` epochs, and after the last one: only what was validated is kept.

    Raises:
        UsageError: E_CONFIG for an interval below 1.
    """

    def __init__(self, validator: Evaluator, interval: int) -> None:
        if interval < 1:
            raise UsageError("E_CONFIG", f"Expected a val_interval of one epoch or more, got {interval}.")
        super().__init__(interval, validator)

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_due), self)

    def _is_due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.interval == 0 or epoch == engine.state.max_epochs


class FreezeEncoders:
    """Let a network's `encoders`, from elsewhere, wait until the rest has learned for some epochs (0: not at all)."""

    def __init__(self, network: Any, epochs: int) -> None:
        self.network, self.epochs = network, epochs
        self._hooks: list[RemovableHandle] = []

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        if self.epochs:
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze or thaw."""
        frozen = engine.state.epoch <= self.epochs
        freeze(self.network.encoders, frozen)
        for hook in self._hooks:
            hook.remove()
        # MONAI's trainer sets every part to learn at each step, and batch normalisations would go on counting
        self._hooks = [encoder.register_forward_pre_hook(_rest) for encoder in self.network.encoders if frozen]


def _rest(encoder: nn.Module, _: Any) -> None:
    encoder.eval()


class Checkpoints:
    """Keep the last and the best checkpoint and the curves, and end a training that no longer gets better.

    Every number that the evaluator measures beside the loss is a further column of the curves.

    The best is the one with the lowest validation loss: `model.pt`; the last one, with all that is needed to go on, is
    `last.pt`. Both are written to `folder` after each validation. A loss that is not finite ends the training before it
    is learned from or kept.

    Args:
        evaluator: MONAI's `SupervisedEvaluator` with the metric `validation_loss`.
        patience: how many epochs without a lower validation loss end the training; 0 for never.
        training_cases: whom it learns from; the checkpoints say so, and calibration refuses them.
        preparation: of the images, with its `patch` and `to_plain`; the checkpoints say it, too.

    Raises:
        UsageError: E_CONFIG when the network cannot halve the patch as often as it has to.
    """

    def __init__(
        self,
        folder: str | Path,
        network: Any,
        optimizer: Any,
        schedule: Any,
        evaluator: Engine,
        patience: int = 0,
        training_cases: Sequence[str] = (),
        preparation: Any = None,
    ) -> None:
        if preparation:
            network.require_patch(preparation.patch)
        self.folder, self.network, self.evaluator, self.patience = Path(folder), network, evaluator, patience
        self.states = {"optimizer": optimizer, "schedule": schedule}
        self.about: dict[str, Any] = {
            TRAINING_CASES: list(training_cases),
            PREPARATION: preparation.to_plain() if preparation else {},
        }
        self.history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._judged: dict[str, float] = {}
        self._started, self._rate = time.perf_counter(), self._rate_now()

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._judge)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._note)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._pass_on)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep)

    def restore(self, engine: Engine) -> int:
        """Go on from the last checkpoint, where there is one, and say how many epochs are done.

        Raises:
            UsageError: E_CHECKPOINT when it is of another architecture, has learned from other cases, or from images
                that were prepared in another way; E_WEIGHTS when it is damaged.
        """
        if not (self.folder / LAST).is_file():
            return 0
        found = read_checkpoint(self.folder / LAST)
        restore(self.network, found)
        self._require_same_data(found)
        for name, item in self.states.items():
            item.load_state_dict(found[name])
        self.history = [dict(row) for row in found["history"]]
        done = int(self.history[-1]["epoch"])
        engine.state.epoch, engine.state.iteration = done, done * engine.state.epoch_length
        return done

    def _require_same_data(self, found: Mapping[str, Any]) -> None:
        """What the checkpoint says of its data has to be true of all that it has learned from."""
        if set(found[TRAINING_CASES]) != set(self.about[TRAINING_CASES]):
            counts = [len(about[TRAINING_CASES]) for about in (found, self.about)]
            raise UsageError(
                "E_CHECKPOINT",
                f"Expected the checkpoint's {counts[0]} training cases, got {counts[1]} that are not the same.",
            )
        before, now = found[PREPARATION], self.about[PREPARATION]
        different = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
        if different:
            key = sorted(different)[0]
            raise UsageError(
                "E_CHECKPOINT", f"Expected {key} {before.get(key)} as in the checkpoint, got {now.get(key)}."
            )

    @property
    def is_over(self) -> bool:
        """Whether the validation loss has not fallen for as many epochs as are waited for."""
        waited = self.history[-1]["epoch"] - self._best["epoch"] if self.history else 0
        return bool(self.patience) and waited >= self.patience

    def summary(self) -> str:
        """What came of the training, in one line."""
        best = self._best
        found = f"lowest validation loss {best['validation_loss']:.4f} after epoch {best['epoch']}"
        return f"{self.history[-1]['epoch']} epochs; {found}: {BEST}"

    @property
    def _best(self) -> dict[str, float]:
        return min(self.history, key=lambda row: row["validation_loss"])

    def _judge(self, evaluator: Engine) -> None:
        self._judged = {
            name: float(value) for name, value in evaluator.state.metrics.items() if isinstance(value, int | float)
        }

    def _start(self, engine: Engine) -> None:
        self._rate = self._rate_now()

    def _rate_now(self) -> float:
        return float(max(group["lr"] for group in self.states["optimizer"].param_groups))

    def _note(self, engine: Engine) -> None:
        loss = float(engine.state.output["loss"].detach())
        if not math.isfinite(loss):
            cases = ", ".join(sorted(set(engine.state.batch["case_id"])))
            raise UsageError("E_NAN_LOSS", f"Expected a finite loss, got {loss}: {cases}.")
        self._losses.append(loss)

    def _pass_on(self, engine: Engine) -> None:
        # what MONAI's trackers look for; the logits of the step need no memory any more
        engine.state.output = [{"loss": engine.state.output["loss"].detach()}]

    def _keep(self, engine: Engine) -> None:
        if not self._judged:
            return
        judged, self._judged = self._judged, {}
        if not math.isfinite(judged["validation_loss"]):
            raise UsageError("E_NAN_LOSS", f"Expected a finite validation loss, got {judged['validation_loss']}.")
        self.history.append(
            {
                "epoch": engine.state.epoch,
                "training_loss": float(np.mean(self._losses)),
                "validation_loss": judged.pop("validation_loss"),
                "learning_rate": self._rate,
                "seconds": round(time.perf_counter() - self._started, 3),
                **judged,
            }
        )
        self._losses, self._started = [], time.perf_counter()
        if get_rank() == 0:
            self._write()
        if self.is_over:
            engine.terminate()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        states: Mapping[str, Any] = {name: item.state_dict() for name, item in self.states.items()}
        common = {"history": self.history, **self.about}
        write_checkpoint(self.folder / LAST, self.network, {**states, **common})
        if self._best is self.history[-1]:
            write_checkpoint(self.folder / BEST, self.network, common)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.history[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        save_text(self.folder / CURVES, text.getvalue())
