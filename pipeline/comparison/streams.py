"""Strategies for inputs that share no grid: each alone, early where it can be, intermediate and late fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.comparison.trials import Variant
from pipeline.errors import UsageError
from pipeline.fusion.network import parameter_count, width_for
from pipeline.fusion.stream_net import EARLY_CAVEAT, StreamNet
from pipeline.spec.streams import Stream, read_streams, streams_of

#: The overlay of `train.yaml` that every strategy lies over.
OVERLAY = "streams"
#: Keys of the overlay that follow from the streams.
OWN_KEYS = ("streams", "spec_file", "patch", "labels", "sizes", "network_def::sizes", "network_def::only")
#: Keys with a value for each encoder, of which a strategy is given those of the encoders that it has.
OF_ENCODERS = ("encoder_weights", "encoder_sha256")
EARLY, INTERMEDIATE, LATE = "early", "intermediate", "late"


def chosen_streams(given: str | Path | Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Stream]:
    """The streams to compare: of a data spec (a file, or the name of a shipped one), or as `streams_of` takes them.

    Raises:
        UsageError: E_SPEC, E_CONFIG; E_MODALITY for a name that is none of them.
    """
    found = streams_of(given if isinstance(given, Mapping) else read_streams(given), names)
    if not found:
        raise UsageError("E_MODALITY", "Expected one stream or more to compare, got none.")
    return found


def network_settings(common: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What all strategies' networks have in common, by keys of `train.yaml`; and the width that was asked for, or 0."""
    given = {name.removeprefix("network_def::"): value for name, value in common.items() if "network_def::" in name}
    width = int(given.pop("width", 0))
    given.pop("mode", None)  # which is each strategy's own
    return {**given, "classes": common["classes"], "table_features": len(common.get("table_columns", ()))}, width


def stream_strategies(streams: Mapping[str, Stream], common: Mapping[str, Any]) -> list[Variant]:
    """Each stream alone, early (of streams of one dimension), intermediate and late fusion.

    Where `unet` encodes every stream, all have the intermediate network's number of parameters ± 10 %; other encoders
    have a size of their own, and the report says how large each network is.

    Args:
        streams: one or more.
        common: keys of `train.yaml` and its overlay, those of `network_def::` among them.

    Raises:
        UsageError: E_CONFIG.
    """
    sizes = {name: list(stream.size) for name, stream in streams.items()}
    shared, width = network_settings(common)
    budget = _budget(sizes, shared, width)

    def variant(name: str, mode: str, seen: Sequence[str]) -> Variant:
        settings: dict[str, Any] = {"modalities": list(seen), "network_def::mode": mode, **_weights(common, mode, seen)}
        if budget:
            settings["network_def::width"] = width_for(
                budget, {**shared, "mode": mode, "sizes": {key: sizes[key] for key in seen}}, StreamNet
            )
        alone = {"modality_dropout": 0.0} if mode == "single" else {}
        return Variant(name, (OVERLAY,), {**settings, **alone})

    found = [variant(f"{name} alone", "single", [name]) for name in sizes]
    if len(sizes) == 1:
        return found
    early = [EARLY] if len({len(size) for size in sizes.values()}) == 1 else []
    return [*found, *(variant(mode, mode, list(sizes)) for mode in (*early, INTERMEDIATE, LATE))]


def notes_of(variants: Sequence[Variant]) -> list[str]:
    """What the report has to say of the strategies."""
    modes = {variant.settings["network_def::mode"] for variant in variants}
    if EARLY in modes:
        return [EARLY_CAVEAT]
    return ["Early fusion is left out: it would need streams of one dimension."] if INTERMEDIATE in modes else []


def _budget(sizes: Mapping[str, Sequence[int]], shared: Mapping[str, Any], width: int) -> int:
    """The parameters that every network has; 0 where encoders have a size of their own."""
    encoder = shared.get("encoder", "unet")
    names = {encoder} if isinstance(encoder, str) else {encoder[name] for name in sizes if name in encoder}
    if names != {"unet"} or len(sizes) == 1:
        return 0
    own = {"width": width} if width else {}
    return parameter_count({**shared, **own, "mode": INTERMEDIATE, "sizes": sizes}, StreamNet)


def _weights(common: Mapping[str, Any], mode: str, seen: Sequence[str]) -> dict[str, Any]:
    """Weights from elsewhere for the encoders that a strategy has; early fusion has one, for all streams."""
    found: dict[str, Any] = {}
    for key in OF_ENCODERS:
        given = {name: value for name, value in dict(common.get(key) or {}).items() if name in seen}
        if given:
            found[key] = {"all": next(iter(given.values()))} if mode == EARLY else given
    return found
