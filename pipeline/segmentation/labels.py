"""Channels as nnU-Net takes them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError


def require_channels(expected: Sequence[str], got: Sequence[str]) -> None:
    """Refuse other channels than a network's, or the same in another order.

    Raises:
        UsageError: E_CHANNELS, with both lists.
    """
    if list(expected) != list(got):
        what = f"Expected the channels {', '.join(expected)}, in this order, got {', '.join(got) or 'none'}."
        raise UsageError("E_CHANNELS", what)
