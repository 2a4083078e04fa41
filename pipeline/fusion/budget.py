"""Equal budgets: the width at which a network has as many parameters as another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet

NARROWEST, WIDEST = 4, 128
#: Networks are compared whose parameters differ by less than this part.
TOLERANCE = 0.1


def parameter_count(definition: Mapping[str, Any]) -> int:
    """Parameters of a network, which is not built for it (torch's device `meta`).

    Args:
        definition: arguments of `FusionNet`.

    Raises:
        UsageError: E_CONFIG.
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in FusionNet(**definition).parameters())


def width_for(parameters: int, definition: Mapping[str, Any]) -> int:
    """The width that comes nearest to a number of parameters.

    Args:
        parameters: how many are wanted.
        definition: arguments of `FusionNet` but the width.

    Raises:
        UsageError: E_CONFIG when no width comes within `TOLERANCE`.
    """
    low, high = NARROWEST, WIDEST
    while low < high:  # the first width with at least as many
        middle = (low + high) // 2
        if parameter_count({**definition, "width": middle}) < parameters:
            low = middle + 1
        else:
            high = middle
    counts = {width: parameter_count({**definition, "width": width}) for width in (max(NARROWEST, low - 1), low)}
    width = min(counts, key=lambda item: abs(counts[item] - parameters))
    if abs(counts[width] / parameters - 1) > TOLERANCE:
        got = f"{counts[width]:,} at width {width}"
        raise UsageError("E_CONFIG", f"Expected a width with {parameters:,} parameters ± 10 %, got {got}.")
    return width
