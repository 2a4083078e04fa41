"""Training on MONAI's engines, in one process or several (`torchrun`): the mean loss, the command, the end."""

from __future__ import annotations

from typing import Any

import torch
from ignite.metrics import Average
from monai.utils import set_determinism
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.console import echo, plainly
from pipeline.errors import UsageError
from pipeline.inference.device import local_device
from pipeline.learning.checkpoints import Checkpoints


class MeanLoss(Average):
    """The mean loss (`FusionLoss`) over the batches of a validation."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(output_transform=lambda output: float(loss(output["pred"], output["label"])))


class Training:
    """A training as a command of its own; its checkpoints listen after all handlers of MONAI's `SupervisedTrainer`."""

    def __init__(self, trainer: Any, checkpoints: Checkpoints, resume: bool = False) -> None:
        self.trainer, self.checkpoints, self.resume = trainer, checkpoints, resume
        checkpoints.attach(trainer)

    def run(self) -> None:
        """Train.

        Raises:
            SystemExit: 2 when it cannot go on; the message says why.
        """
        with plainly():
            start = self.checkpoints.restore(self.trainer) if self.resume else 0
            if start < self.trainer.state.max_epochs and not self.checkpoints.is_over:
                self.trainer.run()
            if not self.checkpoints.history:
                epochs = self.trainer.state.max_epochs
                raise UsageError("E_CONFIG", f"Expected max_epochs of one or more, got {epochs}.")
        echo(self.checkpoints.summary())


def join(seed: int) -> int:
    """Join the processes that `torchrun` has started, one a GPU (or on the processor); gives this one's rank."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_device())
    distributed.init_process_group("nccl" if cuda else "gloo")
    set_determinism(seed)
    return distributed.get_rank()


def leave() -> None:
    """Leave the other processes, when the training is over."""
    distributed.destroy_process_group()


def shared(network: nn.Module) -> nn.Module:
    """The network with the gradients of all processes; the network itself where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return network
    # a modality that no case of a batch has leaves its encoder without gradients
    return DistributedDataParallel(network, find_unused_parameters=True)
