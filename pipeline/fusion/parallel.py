"""One training in several processes (`torchrun`): who this process is, and the network that all of them share."""

from __future__ import annotations

import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def join(seed: int) -> int:
    """Join the processes that `torchrun` has started, one a GPU, or on the processor where there is none.

    Args:
        seed: of the training.

    Returns:
        This process's rank.
    """
    from monai.utils import set_determinism

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_device())
    distributed.init_process_group("nccl" if cuda else "gloo")
    set_determinism(seed)
    return rank()


def leave() -> None:
    """Leave the other processes, when the training is over."""
    distributed.destroy_process_group()


def local_device() -> torch.device:
    """The GPU of this process on its machine; the processor where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def in_parallel() -> bool:
    """Whether this process works with others."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process's number, from 0; the first one alone writes files."""
    return distributed.get_rank() if in_parallel() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if in_parallel() else 1


def shared(network: nn.Module) -> nn.Module:
    """The network with the gradients of all processes; the network itself where there is one process."""
    # a modality that no case of a batch has leaves its encoder without gradients
    return DistributedDataParallel(network, find_unused_parameters=True) if in_parallel() else network
