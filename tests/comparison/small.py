"""A network that is trained in a second, for all tests of comparisons."""

from __future__ import annotations

from typing import Any

#: A network that trains in a second.
SMALL: dict[str, Any] = {
    "device": "cpu",
    "patch": [16, 16, 16],
    "ct_window": [140, 800],
    "network_def::width": 4,
    "network_def::levels": 2,
    "network_def::deep": 0,
    "max_epochs": 2,
    "warmup": 0,
    "batch": 4,
    "cache_rate": 1.0,
}


def definition(**more: Any) -> dict[str, Any]:
    """Arguments of a network."""
    return {"modalities": ["ct", "mr"], "classes": 2, "mode": "intermediate", **more}
