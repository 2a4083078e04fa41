"""Sounds: one channel at one rate, and what is wrong with a recording said before anything is learned from it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from pipeline.errors import CaseError
from pipeline.store.files import open_file

Floats = npt.NDArray[np.float32]

#: The rate at which sounds are compared: up to 8 kHz, where coughs, breath and voice have nearly all they have.
RATE_HZ = 16_000
#: Rates that recordings have; a longer or shorter recording than this is not one of a sound.
LEAST_HZ, MOST_HZ, LEAST_S, MOST_S = 1_000, 192_000, 0.1, 600.0
#: A recording whose largest swing is below -60 dB of full scale is of nothing.
SILENT = 1e-3
#: So many samples in a row at one largest value, so often, are no sound's own shape but a converter at its end.
#: In a recording that swings less than this, its few steps stand still by themselves.
FLAT_SAMPLES, FLAT_PLACES, LEAST_SWING = 3, 3, 0.1
#: Float samples above this (12 dB over full scale) are on another scale than -1 to 1.
MOST_SWING = 4.0
_CONVERT = "Convert it, such as by `ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`."
_AGAIN = "Copy or export the recording again."
#: Starts of files that libsndfile does not read: at which byte, which bytes, their name.
_OTHERS = (
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska (.webm)"),
    (4, b"ftyp", "MPEG-4 (.m4a, .mp4)"),
    (0, b"#!AMR", "AMR"),
    (0, b"0&\xb2u", "WMA"),
)
#: Starts of files that it reads; of MP3 with and without a tag.
_OURS = (b"fLaC", b"OggS", b"RIFF", b"ID3", *(bytes([0xFF, second]) for second in (0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB)))


@dataclass(frozen=True)
class Sound:
    """A sound.

    Attributes:
        samples: (N,), full scale is -1 to 1, mean 0.
        rate_hz: samples a second.
        flags: what a reader has to know (codes `N_...`).
    """

    samples: Floats
    rate_hz: int
    flags: tuple[str, ...] = ()


def read_sound(path: str | Path) -> Sound:
    """Read WAV, FLAC, OGG or MP3: both channels averaged, the mean taken off, resampled to `RATE_HZ`.

    Raises:
        CaseError: E_SOUND when it cannot be read, is cut, too short or too long, has more than two channels, two that
            cancel each other, or samples that are not finite; E_SILENT when it is silent.
    """
    try:
        with open_file(Path(path)) as stream:
            channels, rate = _decoded(stream)
    except OSError as error:
        raise CaseError("E_SOUND", f"Expected a sound, but there is no file to read ({error.strerror}).") from error
    return Sound(_resampled(_mono(channels), rate), RATE_HZ, _flags(channels, rate))


def loudest(sound: Sound, samples: int) -> Sound:
    """The stretch of so many samples with the most energy, the first of equals; a shorter sound amid silence."""
    missing = samples - len(sound.samples)
    if missing > 0:
        padded = np.pad(sound.samples, (missing // 2, missing - missing // 2))
        has, wanted = len(sound.samples) / sound.rate_hz, samples / sound.rate_hz
        flag = f"N_SHORT_SOUND: {has:.2f} s, put amid silence for {wanted:.2f} s"
        return replace(sound, samples=padded, flags=(*sound.flags, flag))
    energy = np.concatenate([[0.0], np.cumsum(np.square(sound.samples, dtype=np.float64))])
    first = int(np.argmax(energy[samples:] - energy[: len(energy) - samples]))
    return replace(sound, samples=sound.samples[first : first + samples])


def _decoded(stream: BinaryIO) -> tuple[Floats, int]:
    """The samples (N, channels) as they are in the file, and their rate."""
    import soundfile

    _require_whole(stream)
    try:
        with soundfile.SoundFile(stream) as file:
            _require_measures(file.frames, file.channels, file.samplerate)
            found = file.read(dtype="float32", always_2d=True)
            expected = file.frames
    except (soundfile.SoundFileError, TypeError) as error:
        stream.seek(0)
        if stream.read(4).startswith(_OURS):
            raise CaseError("E_SOUND", "Expected a whole sound, got one that is cut or damaged.", _AGAIN) from None
        reason = str(getattr(error, "error_string", error)).rstrip(".")[:80]
        raise CaseError(
            "E_SOUND", f"Expected WAV, FLAC, OGG or MP3, but it cannot be read: {reason}.", _CONVERT
        ) from None
    if len(found) < expected:
        raise CaseError("E_SOUND", f"Expected {expected} samples, as its header says, got {len(found)}.", _AGAIN)
    if not np.isfinite(found).all():
        raise CaseError("E_SOUND", "Expected finite samples, got NaN or infinity.", _AGAIN)
    if np.abs(found).max() > MOST_SWING:
        what = f"Expected samples from -1 to 1, got up to {np.abs(found).max():g}."
        raise CaseError("E_SOUND", what, "Divide it by its full scale, such as 32768, and save it.")
    return found, file.samplerate


def _require_measures(samples: int, channels: int, rate_hz: int) -> None:
    if channels > 2:
        remedy = "Keep the channel that is meant, such as by `ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav`."
        raise CaseError("E_SOUND", f"Expected one channel or two, got {channels}: their mean is no sound.", remedy)
    if not LEAST_HZ <= rate_hz <= MOST_HZ:
        raise CaseError("E_SOUND", f"Expected {LEAST_HZ} to {MOST_HZ} samples a second, got {rate_hz}.", _AGAIN)
    if not LEAST_S <= samples / rate_hz <= MOST_S:
        what = f"Expected a sound of {LEAST_S:g} to {MOST_S:g} s, got {samples / rate_hz:g} s."
        raise CaseError("E_SOUND", what, "Cut the recording to the part that is meant.")


def _require_whole(stream: BinaryIO) -> None:
    """Refuse what is no sound that is read here, and WAV and OGG that end before they should; leaves it at its start.

    libsndfile reads what is left of a cut file without a word.
    """
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(12)
    if not size:
        raise CaseError("E_SOUND", "Expected a sound, got an empty file.", _AGAIN)
    for at, mark, name in _OTHERS:
        if start[at : at + len(mark)] == mark:
            raise CaseError("E_SOUND", f"Expected WAV, FLAC, OGG or MP3, got {name}.", _CONVERT)
    cut = {b"RIFF": _wav_is_cut, b"OggS": _ogg_is_cut}.get(start[:4])
    if cut is not None and cut(stream, size):
        raise CaseError("E_SOUND", "Expected a whole sound, got one that is cut: its header promises more.", _AGAIN)
    stream.seek(0)


def _wav_is_cut(stream: BinaryIO, size: int) -> bool:
    """Whether the data chunk ends behind the file; a length of 0 or of all bits says that nobody knew it."""
    at = 12
    while at + 8 <= size:
        stream.seek(at)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            return length not in (0, 0xFFFFFFFF) and at + 8 + length > size
        at += 8 + length + length % 2
    return True


def _ogg_is_cut(stream: BinaryIO, size: int) -> bool:
    """Whether the last page is not the end of its stream, or is not whole. Source: RFC 3533, section 6."""
    stream.seek(max(0, size - (1 << 17)))
    tail = stream.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return True
    kind, segments = tail[at + 5], tail[at + 26]
    table = tail[at + 27 : at + 27 + segments]
    return not kind & 4 or at + 27 + segments + sum(table) > len(tail)


def _flags(channels: Floats, rate: int) -> tuple[str, ...]:
    flags = []
    if any(_is_clipped(channel) for channel in channels.T):
        flags.append("N_CLIPPED: samples stand at the largest value that the recording could hold")
    if rate < RATE_HZ:
        flags.append(f"N_NARROW_BAND: recorded at {rate} Hz: nothing above {rate // 2} Hz")
    return tuple(flags)


def _is_clipped(channel: Floats) -> bool:
    """Whether a channel stands still at its largest or smallest value, or beyond full scale (lossy formats)."""
    high, low = channel.max(), channel.min()
    at_end = (channel == high) | (channel == low) | (np.abs(channel) > 1)
    still = at_end[: -FLAT_SAMPLES + 1].copy()
    for later in range(1, FLAT_SAMPLES):
        still &= at_end[later : len(at_end) - FLAT_SAMPLES + 1 + later]
    places = int(still[0]) + int(np.count_nonzero(still[1:] & ~still[:-1]))
    return max(high, -low) > LEAST_SWING and places >= FLAT_PLACES


def _mono(channels: Floats) -> Floats:
    """(N,): the mean of the channels, which swings about 0."""
    centred = channels - channels.mean(0, dtype=np.float64)
    swing = np.abs(centred).max()
    if swing < SILENT:
        what = f"Expected a sound, got silence: it swings by {swing:.1g} of full scale at most."
        raise CaseError("E_SILENT", what)
    mono = centred.mean(1)
    if np.abs(mono).max() < SILENT:
        remedy = "Keep one of them, such as by `ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav`."
        raise CaseError("E_SOUND", "Expected channels that add up, got two that cancel each other.", remedy)
    return np.asarray(mono, dtype=np.float32)


def _resampled(mono: Floats, rate: int) -> Floats:
    if rate == RATE_HZ:
        return mono
    common = gcd(rate, RATE_HZ)
    return np.asarray(resample_poly(mono, RATE_HZ // common, rate // common), dtype=np.float32)
