"""What a network costs: the operations of its patch, counted by hand."""

from __future__ import annotations

from pathlib import Path

from pipeline.comparison.trials import cost_of
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.network import FusionNet
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint


def test_the_products_of_attention_are_counted(tmp_path: Path) -> None:
    """Queries, keys, values and their mixing: 8 C^2 operations a token; the two products of attention: 4 tokens C."""
    counts = {}
    for block in ("cross_attention", "concat"):
        network = FusionNet(["ct", "mr"], classes=2, labels=0, block=block, width=8, levels=2)
        about = {TRAINING_CASES: [], PREPARATION: Preparation(["ct", "mr"], ["ct"], [40, 400], [8, 8, 8]).to_plain()}
        write_checkpoint(tmp_path / "model.pt", network, about)
        counts[block] = cost_of(tmp_path / "model.pt")["flops"]
    expected = sum(tokens * (8 * width**2 + 4 * tokens * width) for tokens, width in ((2 * 8**3, 8), (2 * 4**3, 16)))
    assert counts["cross_attention"] - counts["concat"] == expected
