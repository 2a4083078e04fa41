"""What a network of streams saw of a case, and why it says what it says: on each stream's own grid.

A place of one stream is no place of another: each stream has pictures and a map of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.explain import CAVEAT, MAPS, WORDS, brightest, check_methods, findings_table, measures_without
from pipeline.fusion.explanations import check_level, log_odds_direction, streams_of
from pipeline.fusion.predict import RANK, Calibrated, class_chances, images_there, inputs_of
from pipeline.fusion.stream_net import StreamNet
from pipeline.fusion.stream_parts import GatedTokens
from pipeline.fusion.streams import unpacked
from pipeline.geometry import LPS_RAS
from pipeline.spec.streams import Stream
from pipeline.spec.streams import streams_of as checked_streams
from pipeline.store.sections import Axis, Coloured, Display, Panel, Picture, Section, Sections
from pipeline.volumes import affine_of, volume
from pipeline.words import clean, in_words

Data = Mapping[Hashable, Any]
#: Name -> affine of each volume, as it was given to the network.
AFFINES = "stream_affines"
#: Width of a sound's picture over its height.
SOUND_ASPECT = 1.5
SEEN_CAPTION = "What the network was given of it, at the size at which it looks."


class KeepAffinesd(Transform):
    """Keep the affines of the volumes among the streams, before they are packed into one row."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Keep."""
        there = {key: data[key] for key in self.keys if isinstance(data.get(key), MetaTensor) and data[key].ndim == 4}
        return {**data, AFFINES: {key: affine_of(image) for key, image in there.items()}}


class ExplainStreamsd(Transform):
    """Add what the network saw of each stream, `fused_seen_<stream>`, and what moves its answer.

    - `gradcam`: `fused_gradcam_<stream>` on the same grid: what each place adds to the log-odds of the class
      (`stream_gradcam`); measures `fused_gradcam_share_<stream>`.
    - `gates`: measures `fused_gate_share_<stream>`: how much each stream counts in the fused token; the sum is 1.
    - `occlusion`: measures of each stream that is there, when there are two: `fused_class_without_<stream>`,
      `fused_class_probability_without_<stream>` (of the class that all of them say) and
      `fused_class_probability_change_without_<stream>`.

    Args:
        methods: some of `gradcam`, `gates`, `occlusion`; without, streams are shown alone.
        network: on its device.
        streams: name -> keys and values of each stream, in the order of the network's.
        class_names: of the network's classes, in order.
        sound_axes: gives what runs across and up the picture of a sound, of its stream.
        calibration: of the class logits; the network's own probabilities when None.
        gradcam_level: of the encoders: 0 the finest, -1 the coarsest.

    Raises:
        UsageError: E_EXPLAIN for a method that does not exist or that the network has nothing for.
    """

    def __init__(
        self,
        methods: Sequence[str],
        network: StreamNet,
        streams: Mapping[str, Any],
        class_names: Sequence[str],
        sound_axes: Callable[[Stream], tuple[Axis, Axis]],
        calibration: Calibrated | None = None,
        gradcam_level: int = 0,
    ) -> None:
        _check(methods, network, gradcam_level)
        self.methods = tuple(name for name in MAPS if name in methods)
        self.network, self.streams, self.class_names = network, checked_streams(streams), tuple(class_names)
        self.sound_axes, self.calibration, self.gradcam_level = sound_axes, calibration, gradcam_level

    def writes(self) -> dict[str, str]:
        """What the stage writes more: key -> kind."""
        keys = [_key("seen", name) for name in self.network.sees]
        keys += [_key("gradcam", name) for name in self.network.sees] if "gradcam" in self.methods else []
        return dict.fromkeys(keys, "image?")

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Explain a case that has `image` (1, N), `available` (M,) and perhaps `table`."""
        case, look = dict(data), _Look(self.network, data)
        sizes = {name: stream.size for name, stream in self.streams.items()}
        for name, seen in unpacked(torch.as_tensor(data["image"]).as_subclass(Tensor), sizes).items():
            if name in self._seen(data):
                case[_key("seen", name)] = self._picture(name, seen, data)
        if not self.methods:
            return case
        logits = look.logits()
        chances = class_chances(logits, self.calibration)
        chosen = int(chances.argmax())
        measures = {**(case.get("measures") or {}), "fused_explained_class": self.class_names[chosen]}
        if "gradcam" in self.methods:
            measures |= self._gradcam(case, look, log_odds_direction(logits, chosen))
        if "gates" in self.methods:
            shares = zip(self.network.modalities, look.gates().tolist(), strict=True)
            measures |= {f"fused_gate_share_{name}": round(share, 4) for name, share in shares}
        if "occlusion" in self.methods:
            without = {name: class_chances(item, self.calibration) for name, item in look.without_each().items()}
            measures |= measures_without(without, self.class_names, chosen, float(chances[chosen]))
        return {**case, "measures": measures}

    def sections(self, case: Data) -> Sections:
        """What each stream has to do with the class; each stream as it was seen, and the map over it."""
        said, measures = clean(case["measures"].get("fused_explained_class", "")), case["measures"]
        names = list(self._seen(case))
        ranked = max(names, key=lambda name: measures.get(f"fused_gradcam_share_{name}", 0.0))
        pictures = tuple(self._drawn(name, case, RANK if name == ranked else 0) for name in names)
        title = f"Why {said}" if said else "What the network saw"
        displays = tuple(
            Display(_key(kind, name), f"{in_words(name)} {words}", unit)
            for name in names
            for kind, words, unit in (
                ("seen", "as the network saw it", ""),
                ("gradcam", *WORDS["gradcam"][:2]),
            )
        )
        if not self.methods:
            return Sections((Section(title, (), (), pictures),), (), displays)
        others = streams_of(self.network) if "gradcam" in self.methods else ()  # early fusion has one map for all
        table = findings_table("Stream", self.methods, dict.fromkeys([*names, *others]), measures)
        return Sections((Section(title, (CAVEAT,), (table,), pictures),), (), displays)

    def _seen(self, case: Data) -> dict[str, str]:
        """The streams that are there and that the network looks at."""
        there = images_there(self.network.modalities, (), case)
        return {name: key for name, key in there.items() if name in self.network.sees}

    def _picture(self, name: str, values: Tensor, data: Data) -> MetaTensor:
        """A stream (1, *size) as an image (1, I, J, K) that is drawn the right way up."""
        stream, values = self.streams[name], values.detach().float().cpu()
        if stream.kind == "volume":
            return volume(values, (data.get(AFFINES) or {}).get(name, np.eye(4)))
        if stream.kind == "image":  # from left to right and from top to bottom, as radiographs are hung
            return volume(values[..., None], LPS_RAS)
        bands, frames = stream.size
        wide = np.diag([SOUND_ASPECT * bands / frames, 1.0, 1.0, 1.0])
        return volume(values.transpose(1, 2).flip(2)[..., None], LPS_RAS @ wide)

    def _drawn(self, name: str, case: Data, rank: int) -> Picture:
        stream, seen, found = self.streams[name], _key("seen", name), _key("gradcam", name)
        panels = [Panel(in_words(name), seen)]
        caption = SEEN_CAPTION
        if found in case:
            values = torch.as_tensor(case[found]).as_subclass(Tensor)
            limit = brightest("gradcam", values)
            words, unit, what = WORDS["gradcam"]
            coloured = Coloured(found, 0, limit, unit, beyond=float(values.max()) > limit)
            panels.append(Panel(f"{words} {in_words(name)}", seen, coloured=coloured))
            caption = f"{SEEN_CAPTION} {what.split(', in the tiles')[0].rstrip('.')}. {CAVEAT}"
        title = f"What the network saw of {in_words(name)}"
        focus = found if found in case else ""
        return Picture(f"seen_{name}", title, caption, tuple(panels), focus, rank=rank, axes=self._axes(stream))

    def _axes(self, stream: Stream) -> tuple[Axis, ...]:
        if stream.kind == "sound":
            return self.sound_axes(stream)
        if stream.kind == "image":
            return tuple(Axis("Pixels", ((1.0, str(side)),)) for side in stream.size)
        return ()

    def _gradcam(self, case: dict[Hashable, Any], look: _Look, direction: Tensor) -> dict[str, Any]:
        maps = stream_gradcam(look, direction, self.gradcam_level)
        names = streams_of(self.network)
        total = max(float(sum(item.sum() for item in maps)), torch.finfo(torch.float32).tiny)
        for name in self._seen(case):
            found = maps[names.index(name) if name in names else 0]
            how = "bilinear" if found.ndim == 4 else "trilinear"
            on_stream = functional.interpolate(found, self.streams[name].size, mode=how, align_corners=False)
            case[_key("gradcam", name)] = self._picture(name, on_stream[0], case)
        shares = zip(names, maps, strict=True)
        return {f"fused_gradcam_share_{name}": round(float(item.sum()) / total, 4) for name, item in shares}


class _Look:
    """A network and what it is given of a case: image (1, 1, N), available (1, M), table."""

    def __init__(self, network: StreamNet, data: Data) -> None:
        self.network = network
        self.image, self.available, self.table = inputs_of(data, network)

    @torch.inference_mode()
    def logits(self, available: Tensor | None = None) -> Tensor:
        """The class logits (classes,), of the streams that are there or of fewer."""
        there = self.available if available is None else available
        return self.network.class_logits(self.image, there, self.table)[0].float()

    def without_each(self) -> dict[str, Tensor]:
        """The class logits without each stream that counts, as if it had never been there; none where only one is."""
        counts = [
            number
            for number, name in enumerate(self.network.modalities)
            if bool(self.available[0, number]) and name in self.network.sees
        ]
        found: dict[str, Tensor] = {}
        for number in counts if len(counts) > 1 else ():
            available = self.available.clone()
            available[0, number] = False
            found[self.network.modalities[number]] = self.logits(available)
        return found

    @torch.inference_mode()
    def gates(self) -> Tensor:
        """How much each stream counts (M,), with the sum 1."""
        kept: list[Tensor] = []

        def keep(block: GatedTokens, inputs: tuple[list[Tensor], list[Tensor], Tensor]) -> None:
            kept.append(block.weights(inputs[0], inputs[2])[0])

        handle = self.network.fusions[0].register_forward_pre_hook(keep)
        try:
            self.logits()
        finally:
            handle.remove()
        return kept[0].float().cpu()


def stream_gradcam(look: _Look, direction: Tensor, level: int = 0) -> list[Tensor]:
    """What each place that an encoder looks at adds to the log-odds of a class, where it adds something.

    Feature times gradient, as `pipeline.fusion.explanations.gradcam_maps` does (HiResCAM), in one look.

    Args:
        look: the network and the case.
        direction: how much each class logit counts (`log_odds_direction`).
        level: of the encoders: 0 is the finest, through which all has come; -1 the coarsest.

    Returns:
        For each encoder (1, 1, …), at least 0, on the grid of the level.
    """
    kept: list[list[Tensor]] = []
    encoders: list[Any] = list(look.network.encoders)
    handles = [part.encoder.register_forward_hook(lambda _, __, maps: kept.append(maps)) for part in encoders]
    try:
        with torch.enable_grad():
            image = look.image.clone().requires_grad_(True)
            score = (look.network.class_logits(image, look.available, look.table)[0] * direction).sum()
            features = [maps[level] for maps in kept]
            slopes = torch.autograd.grad(score, features)
    finally:
        for handle in handles:
            handle.remove()
    pairs = zip(features, slopes, strict=True)
    return [torch.relu((one * slope).sum(1, keepdim=True)).detach() for one, slope in pairs]


def _key(kind: str, stream: str) -> str:
    return f"fused_{kind}_{stream}"


def _check(methods: Sequence[str], network: StreamNet, level: int) -> None:
    check_methods(methods)
    if "gates" in methods and not any(isinstance(block, GatedTokens) for block in network.fusions):
        got = f"one of {network.mode} fusion without"
        raise UsageError("E_EXPLAIN", f"Expected a network with gates (intermediate fusion, block gated), got {got}.")
    check_level(len(network.encoders[0].encoder.channels), level)  # type: ignore[arg-type, union-attr]
