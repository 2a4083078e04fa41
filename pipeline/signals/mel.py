"""Log-mel spectrograms: how loud a sound is, in bands as the ear has them, from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UsageError

#: Less power counts as this much: -100 dB.
LEAST_POWER = 1e-10
#: Samples of the shortest Fourier window: 32 ms at 16 kHz.
LEAST_WINDOW = 512
#: Slaney's scale: linear up to 1 kHz, 15 mel there; above, 27 steps for a factor of 6.4.
_LINEAR_HZ, _BREAK_HZ, _STEP = 200.0 / 3.0, 1000.0, float(np.log(6.4)) / 27.0


@dataclass(frozen=True)
class Framing:
    """How a stretch of sound is cut into frames.

    Attributes:
        hop: samples from the middle of one frame to that of the next.
        window: samples of the Fourier window around it: at least two hops, so that no sample goes unseen.
        samples: of the stretch, from the middle of the first frame to that of the last.
    """

    hop: int
    window: int
    samples: int


def framing(frames: int, seconds: float, rate_hz: int) -> Framing:
    """Cut `seconds` of sound into frames; the step is a whole number of samples, so up to one a frame is left over.

    Raises:
        UsageError: E_OPTION for fewer than two frames, or more than samples.
    """
    hop = int(seconds * rate_hz) // (frames - 1) if frames > 1 else 0
    if hop < 1:
        what = f"Expected two frames or more, and no more than samples, got {frames} in {seconds:g} s."
        raise UsageError("E_OPTION", what)
    return Framing(hop, max(LEAST_WINDOW, 1 << (2 * hop - 1).bit_length()), hop * (frames - 1))


def log_mel(
    samples: npt.NDArray[np.floating] | torch.Tensor,
    rate_hz: int,
    bands: int = 64,
    window: int = LEAST_WINDOW,
    hop: int = 256,
) -> torch.Tensor:
    """The power of a sound in mel bands, in dB.

    Args:
        samples: (N,), full scale is 1. The work is in float64: in float32 faint bands beside loud ones are off by
            thousandths of a dB.
        rate_hz: of the samples.
        bands: from 0 Hz to half the rate.
        window: samples of the Hann window; around both ends there is silence.
        hop: samples from frame to frame.

    Returns:
        (1, bands, 1 + N // hop), float32: low to high, early to late; 10 log10 of the power, -100 at least. A sine of
        full scale has about 25.

    Raises:
        UsageError: E_OPTION for bands so narrow that the window cannot tell them apart.

    Source: Slaney, Auditory Toolbox, Technical Report 1998-010, 1998; as librosa 0.11 computes it.
    """
    wave = torch.as_tensor(samples, dtype=torch.float64)
    hann = torch.hann_window(window, dtype=wave.dtype)
    spectrum = torch.stft(wave, window, hop, window=hann, center=True, pad_mode="constant", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    in_bands = mel_filters(rate_hz, window, bands) @ power
    return (10 * torch.log10(in_bands.clamp(min=LEAST_POWER)))[None].float()


@cache
def mel_filters(rate_hz: int, window: int, bands: int) -> torch.Tensor:
    """Triangles over the frequencies of a Fourier window, each of area 1: (bands, 1 + window // 2), float64.

    Raises:
        UsageError: E_OPTION for a band that holds no frequency of the window.
    """
    edges = _edges_hz(rate_hz, bands)
    steps = np.diff(edges)
    apart = edges[:, None] - np.fft.rfftfreq(window, 1 / rate_hz)
    rising, falling = -apart[:-2] / steps[:-1, None], apart[2:] / steps[1:, None]
    found = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    if not found.any(axis=1).all():
        what = f"Expected bands that a window of {window} samples tells apart at {rate_hz} Hz, got {bands}."
        raise UsageError("E_OPTION", what, "Use fewer bands.")
    return torch.from_numpy(found)


def band_middles_hz(rate_hz: int, bands: int) -> npt.NDArray[np.float64]:
    """The frequency in the middle of each band, (bands,), Hz: for axes of figures."""
    return _edges_hz(rate_hz, bands)[1:-1]


def _edges_hz(rate_hz: int, bands: int) -> npt.NDArray[np.float64]:
    """Where bands start, are loudest and end, (bands + 2,): evenly spaced in mel from 0 Hz to half the rate."""
    break_mel, top_hz = _BREAK_HZ / _LINEAR_HZ, rate_hz / 2
    top = top_hz / _LINEAR_HZ if top_hz < _BREAK_HZ else break_mel + np.log(top_hz / _BREAK_HZ) / _STEP
    mel = np.linspace(0, top, bands + 2)
    above = _BREAK_HZ * np.exp(_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.asarray(np.where(mel < break_mel, mel * _LINEAR_HZ, above), dtype=np.float64)
