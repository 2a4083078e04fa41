"""Where networks run."""

from __future__ import annotations

import os

import torch


def local_device() -> torch.device:
    """The GPU of this process on its machine; the processor where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
