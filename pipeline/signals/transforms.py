"""Dictionary transforms that put pictures and sounds, as networks take them, in the place of their files' paths."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapTransform

from pipeline.errors import UsageError, flag_of
from pipeline.signals.mel import framing, log_mel, mel_filters
from pipeline.signals.pictures import check_intensity, fitted, levelled, read_picture
from pipeline.signals.sound import RATE_HZ, loudest, read_sound

#: A network is given (dB - MIDDLE_DB) / SPREAD_DB: silence, -100 dB, is -3, and a sine of full scale about 3. The same
#: for every sound, so that a loud one stays louder than a faint one.
MIDDLE_DB, SPREAD_DB = -40.0, 20.0


class ReadPicturesd(MapTransform):
    """Read pictures as (1, *size) float32: -1 is black, 1 is white; `pipeline.signals.pictures`.

    Flags are added to the case's, each with the key of its picture.

    Args:
        keys: paths; one that is missing stays missing.
        size: (I, J), pixels along a row and down a column. Pictures are padded with black, never stretched.
        intensity: what is black and what is white: `full`, `percentiles` or [low, high], as
            `pipeline.signals.pictures.levelled` takes it. It is not the picture's own mean and deviation, which would
            take its brightness away.

    Raises:
        UsageError: E_OPTION.
        CaseError: as `read_picture`, `levelled` and `fitted`.
    """

    def __init__(
        self, keys: Sequence[str] | str, size: Sequence[int], intensity: str | Sequence[float] = "full"
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.size = _pair(size, "size of pictures, (I, J)")
        check_intensity(intensity)
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each picture."""
        case = dict(data)
        for key in self.key_iterator(case):
            picture = read_picture(case[key])
            values, flags = levelled(picture, self.intensity)
            case[key] = 2 * fitted(values, picture.spacing_mm, self.size) - 1
            add_flags(case, key, (*picture.flags, *flags))
        return case


class ReadSoundsd(MapTransform):
    """Read sounds as log-mel spectrograms (1, *size) float32, standardised alike; `pipeline.signals.sound` and `mel`.

    Of each the loudest stretch is taken; flags are added to the case's, each with the key of its sound.

    Args:
        keys: paths; one that is missing stays missing.
        size: (bands, frames), low to high and early to late.
        seconds: of the stretch, from the middle of the first frame to that of the last.

    Raises:
        UsageError: E_OPTION when the stretch cannot be cut into so many frames, or the bands are too narrow.
        CaseError: as `read_sound`.
    """

    def __init__(self, keys: Sequence[str] | str, size: Sequence[int] = (64, 126), seconds: float = 2.0) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.size = _pair(size, "size of sounds, (bands, frames)")
        self.framing = framing(self.size[1], seconds, RATE_HZ)
        mel_filters(RATE_HZ, self.framing.window, self.size[0])  # refuses bands that cannot be, before a case is read

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each sound."""
        case, cut = dict(data), self.framing
        for key in self.key_iterator(case):
            sound = loudest(read_sound(case[key]), cut.samples)
            found = log_mel(sound.samples, RATE_HZ, self.size[0], cut.window, cut.hop)
            case[key] = (found - MIDDLE_DB) / SPREAD_DB
            add_flags(case, key, sound.flags)
        return case


def _pair(size: Sequence[int], what: str) -> tuple[int, int]:
    whole = not isinstance(size, str) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    if not whole:
        raise UsageError("E_OPTION", f"Expected two whole numbers above 0 as {what}, got {size}.")
    return int(size[0]), int(size[1])


def add_flags(case: dict[Hashable, Any], key: Hashable, flags: Sequence[str]) -> None:
    """Add flags that name a role to a case: `N_TURNED: as its EXIF says` -> `N_TURNED: cxr: as its EXIF says`."""
    case["flags"] = [*case.get("flags", ()), *(flag_of(str(key), flag) for flag in flags)]
