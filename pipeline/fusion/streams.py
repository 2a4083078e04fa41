"""Streams, inputs that share no grid, as the network takes them: each read by its own chain, all packed in a row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandomizableTransform, ResizeWithPadOrCrop, Transform
from torch import Tensor

from pipeline.errors import CaseError, pipeline_cause
from pipeline.fusion.data import ReadImagesd
from pipeline.fusion.resample import orientation_code, oriented, spacing_of, to_spacing
from pipeline.spec.streams import Stream, streams_of

Data = Mapping[Hashable, Any]
#: Makes an image of another: windows or standardises its values.
Values = Callable[..., MetaTensor]
#: Makes a transform of keys and further arguments.
Maker = Callable[..., Callable[[Data], Mapping[Hashable, Any]]]


class FitVolumed(MapTransform):
    """Bring a volume to the size of a stream: its axes turned, its voxels made as large as asked, then cut or filled.

    What is cut and what is filled lies on both sides of the middle; it is filled with the smallest value. The case's
    flags say when something was cut.

    Args:
        keys: the volumes (1, I, J, K); those that are missing are passed over.
        stream: of kind `volume`.
        window: gives a CT's windows, as `pipeline.preprocessing.intensity.window_channels` does.
        zscore: brings the foreground to mean 0 and deviation 1, as `foreground_zscore` beside it does.

    Raises:
        UsageError: E_CONFIG.
        CaseError: E_GRID for several channels, E_BLANK for a volume without contrast or with values that are none.
    """

    def __init__(self, keys: Sequence[str], stream: Stream, window: Values, zscore: Values) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.stream, self.window, self.zscore = stream, window, zscore
        self.spacing, self.orientation = spacing_of(stream.spacing_mm), orientation_code(stream.orientation)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Fit."""
        case = dict(data)
        for key in self.key_iterator(case):
            image = case[key]
            if image.ndim != 4 or image.shape[0] != 1:
                shape = tuple(image.shape[1:]) if image.ndim else ()
                raise CaseError("E_GRID", f"Expected one volume (I, J, K) as {key}, got {image.shape[0]} of {shape}.")
            case[key], flags = self._fitted(str(key), image)
            case["flags"] = [*case.get("flags", ()), *flags]
        return case

    def _fitted(self, key: str, image: MetaTensor) -> tuple[MetaTensor, list[str]]:
        image = oriented(image, self.orientation) if self.orientation else image
        image = to_spacing(image, self.spacing) if self.spacing else image
        image = self._normalised(image)
        size, shape = self.stream.size, tuple(image.shape[1:])
        fit = ResizeWithPadOrCrop(size, mode="constant", value=float(image.min()))
        cut = any(have > keep for have, keep in zip(shape, size, strict=True))
        sizes = " × ".join(map(str, size)), " × ".join(map(str, shape))
        return fit(image), [f"N_STREAM_CUT: {key}: {sizes[0]} voxels of {sizes[1]} were looked at"] if cut else []

    def _normalised(self, image: MetaTensor) -> MetaTensor:
        if self.stream.intensity == "ct":
            return self.window(image, {"ct": self.stream.window})
        return self.zscore(image) if self.stream.intensity == "zscore" else image


class ReadStreamsd(Transform):
    """Read each stream of a case by the chain of its kind: a path becomes a tensor (1, *size).

    Args:
        streams: name -> stream (`pipeline.spec.streams.Stream`, or its keys and values).
        image: makes the transform that reads pictures, of `keys`, `size` and `intensity`; keys may be missing.
        sound: makes the transform that reads sounds, of `keys`, `size` and `seconds`; keys may be missing.
        window: as in `FitVolumed`.
        zscore: as in `FitVolumed`.

    Raises:
        UsageError: E_CONFIG.
        CaseError: what the readers raise; E_NIFTI, E_GRID, E_BLANK of volumes.
    """

    def __init__(self, streams: Mapping[str, Any], image: Maker, sound: Maker, window: Values, zscore: Values) -> None:
        self.readers = {
            name: _reader(name, stream, image, sound, window, zscore) for name, stream in streams_of(streams).items()
        }

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Read."""
        case = dict(data)
        for name, read in self.readers.items():
            try:
                case = dict(read(case))
            except Exception as error:
                if (known := pipeline_cause(error)) is None:
                    raise
                whose = f"{name} of {data['case_id']}" if "case_id" in data else name
                raise type(known)(known.code, f"{whose}: {known.message}", known.remedy) from error
        return case


def _reader(
    name: str, stream: Stream, image: Maker, sound: Maker, window: Values, zscore: Values
) -> Callable[[Data], Mapping[Hashable, Any]]:
    if stream.kind == "image":
        return image(keys=[name], size=stream.size, intensity=stream.intensity)
    if stream.kind == "sound":
        return sound(keys=[name], size=stream.size, seconds=stream.seconds)
    load = ReadImagesd([name], reader="NibabelReader", ensure_channel_first=True, allow_missing_keys=True)
    return Compose([load, FitVolumed([name], stream, window, zscore)])


def for_each(keys: Sequence[str], make: Maker, sizes: Mapping[str, Sequence[int]], translation: float) -> Compose:
    """A random transform for each stream by itself: MONAI's would give all of them the draw and the size of the first.

    Args:
        keys: the streams; those that are missing are passed over.
        make: makes the transform, of `keys`, `allow_missing_keys` and `translate_range` in pixels.
        sizes: of the streams.
        translation: share of each side that a stream is moved by at most.
    """
    moves = {key: [translation * side for side in sizes[key]] for key in keys}
    return Compose([make(keys=[key], allow_missing_keys=True, translate_range=moves[key]) for key in keys])


class RandShiftFramesd(RandomizableTransform, MapTransform):
    """Let the frames of a log-mel (1, bands, frames) begin a little earlier or later; the first or last one goes on.

    Args:
        keys: the sounds; those that are missing are passed over.
        prob: that they are shifted.
        share: of the frames that they are shifted by at most.
    """

    def __init__(self, keys: Sequence[str], prob: float, share: float) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys=True)
        RandomizableTransform.__init__(self, prob)
        self.share = share

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Shift."""
        case = dict(data)
        self.randomize(None)
        part = float(self.R.uniform(-self.share, self.share))
        for key in self.key_iterator(case) if self._do_transform else ():
            frames = case[key].shape[-1]
            places = torch.arange(frames) - round(part * frames)
            case[key] = case[key][..., places.clamp(0, frames - 1)]
        return case


class PackStreamsd(Transform):
    """Make one `image` (1, N) of the streams, one after another, and say in `available` (M,) which are there.

    What is missing becomes zeros. The case keeps its other entries; the single streams go, and so does a mask, which no
    stream has.

    Args:
        streams: as in `ReadStreamsd`, in the order of the network's.

    Raises:
        UsageError: E_CONFIG.
        CaseError: E_MISSING_ROLE when none is there; E_GRID for another size, E_BLANK for values that are none.
    """

    def __init__(self, streams: Mapping[str, Any]) -> None:
        self.streams = streams_of(streams)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Pack."""
        case = {key: item for key, item in data.items() if key not in self.streams and key != "mask"}
        there = [name in data for name in self.streams]
        if not any(there):
            raise CaseError("E_MISSING_ROLE", f"Expected one of {', '.join(self.streams)}, got none.")
        case["image"] = torch.cat([self._row(name, data) for name in self.streams])[None]
        case["available"] = torch.tensor(there)
        return case

    def _row(self, name: str, data: Data) -> Tensor:
        stream = self.streams[name]
        if name not in data:
            return torch.zeros(stream.values)
        given = torch.as_tensor(data[name]).as_subclass(Tensor).float()
        if tuple(given.shape) != (1, *stream.size):
            raise CaseError("E_GRID", f"Expected {name} of the size {list(stream.size)}, got {list(given.shape[1:])}.")
        if not bool(torch.isfinite(given).all()):
            raise CaseError("E_BLANK", f"Expected finite values of {name}, got some that are not.")
        return given.flatten()


def unpacked(image: Tensor, sizes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The streams of a packed row (…, N), each (…, *size), by name: what `PackStreamsd` had been given."""
    lengths = [int(torch.Size(size).numel()) for size in sizes.values()]
    parts = image.split(lengths, -1)
    return {
        name: part.reshape(*image.shape[:-1], *size) for (name, size), part in zip(sizes.items(), parts, strict=True)
    }
