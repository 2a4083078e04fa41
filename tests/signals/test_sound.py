"""Sounds against librosa, against tones whose truth is known, and every recording that is unfit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from pipeline.errors import CaseError, UsageError
from pipeline.signals.mel import band_middles_hz, framing, log_mel, mel_filters
from pipeline.signals.sound import RATE_HZ, Sound, loudest, read_sound
from pipeline.signals.transforms import SPREAD_DB, ReadSoundsd

Floats = npt.NDArray[np.float64]


def burst(rate: int, seconds: float = 2.0, at_s: float = 1.2) -> Floats:
    """Faint noise, and a burst of loud noise around a time."""
    rng, times = np.random.default_rng(0), np.arange(int(rate * seconds)) / rate
    loud = rng.normal(size=len(times)) * np.exp(-(((times - at_s) / 0.1) ** 2))
    return np.asarray(0.2 * loud + 0.001 * rng.normal(size=len(times)))


def tone(hz: float, rate: int, seconds: float = 1.0, swing: float = 0.5) -> Floats:
    return np.asarray(swing * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate))


def librosa_db(samples: Any, rate: int, bands: int, window: int, hop: int) -> Any:
    power = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=window, hop_length=hop, n_mels=bands, pad_mode="constant"
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "bands", "window", "hop"),
    [(16_000, 64, 512, 256), (16_000, 128, 2048, 629), (8_000, 40, 512, 100), (22_050, 80, 1024, 300)],
)
def test_log_mel_is_that_of_librosa(rate: int, bands: int, window: int, hop: int) -> None:
    samples = burst(rate) + tone(440, rate, 2.0, 0.3)
    expected = librosa_db(samples, rate, bands, window, hop)
    found = log_mel(samples, rate, bands, window, hop)[0].numpy()
    assert found.shape == expected.shape == (bands, 1 + len(samples) // hop)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    filters = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands, dtype=np.float64)
    assert np.abs(mel_filters(rate, window, bands).numpy() - filters).max() <= 1e-15
    middles = librosa.mel_frequencies(n_mels=bands + 2, fmax=rate / 2)[1:-1]
    assert np.allclose(band_middles_hz(rate, bands), middles, rtol=1e-12)


def test_float32_samples_are_worked_on_as_exactly() -> None:
    samples = burst(RATE_HZ).astype(np.float32)
    assert (
        np.abs(log_mel(samples, RATE_HZ)[0].numpy() - librosa_db(samples.astype(float), RATE_HZ, 64, 512, 256)).max()
        < 1e-4
    )


def test_bands_that_a_window_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected bands that a window of 512 samples tells apart"):
        mel_filters(RATE_HZ, 512, 200)
    with pytest.raises(UsageError, match="E_OPTION"):
        ReadSoundsd("cough", size=(400, 126))


def test_no_sample_goes_unseen_between_frames() -> None:
    assert framing(126, 2.0, RATE_HZ).__dict__ == {"hop": 256, "window": 512, "samples": 32_000}
    for frames, seconds in ((64, 5.0), (128, 5.0), (16, 1.0), (1000, 1.0)):
        cut = framing(frames, seconds, RATE_HZ)
        assert cut.window >= 2 * cut.hop and 0 <= seconds * RATE_HZ - cut.samples < frames
        assert log_mel(np.zeros(cut.samples), RATE_HZ, 40, cut.window, cut.hop).shape == (1, 40, frames)
    for frames, seconds in ((1, 2.0), (126, 0.001), (0, 1.0)):
        with pytest.raises(UsageError, match="E_OPTION: Expected two frames or more"):
            framing(frames, seconds, RATE_HZ)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_each_format_gives_the_sound_that_was_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    written = burst(44_100)
    soundfile.write(path, np.stack([written, written], 1), 44_100)
    found = read_sound(path)
    assert found.rate_hz == RATE_HZ and found.flags == () and found.samples.dtype == np.float32
    assert found.samples.shape == (32_000,)
    expected = librosa.resample(written, orig_sr=44_100, target_sr=RATE_HZ, res_type="soxr_hq")
    assert np.corrcoef(found.samples, expected)[0, 1] > (0.98 if suffix in ("wav", "flac") else 0.9)


def test_a_tone_keeps_its_pitch_and_its_loudness(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 44_100), 44_100)
    found = read_sound(tmp_path / "a.wav").samples[2000:-2000]
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert abs(np.fft.rfftfreq(len(found), 1 / RATE_HZ)[spectrum.argmax()] - 1000) < 2
    assert np.sqrt(2 * (found**2).mean()) == pytest.approx(0.5, rel=0.01)


def test_what_lies_above_half_the_rate_does_not_come_back_lower(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(11_000, 44_100) + tone(1000, 44_100, swing=0.05), 44_100)
    found = log_mel(read_sound(tmp_path / "a.wav").samples, RATE_HZ)[0, :, 20:40].mean(1).numpy()
    assert abs(band_middles_hz(RATE_HZ, 64)[found.argmax()] - 1000) < 50
    alias = np.abs(band_middles_hz(RATE_HZ, 64) - 5000).argmin()
    assert found[alias] < found.max() - 30


def test_the_loudest_stretch_is_taken(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", burst(RATE_HZ, 4.0, 3.1), RATE_HZ)
    whole = read_sound(tmp_path / "a.wav")
    found = loudest(whole, RATE_HZ)
    assert len(found.samples) == RATE_HZ and (found.samples**2).sum() > 0.999 * (whole.samples**2).sum()
    samples = np.zeros(100, np.float32)
    samples[60:70] = 1
    assert loudest(Sound(samples, RATE_HZ), 10).samples.tolist() == [1.0] * 10
    assert loudest(Sound(samples, RATE_HZ), 100).samples.tolist() == samples.tolist()


def test_a_short_sound_stands_amid_silence_and_says_so() -> None:
    found = loudest(Sound(np.ones(4, np.float32), 4), 8)
    assert found.samples.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert found.flags == ("N_SHORT_SOUND: 1.00 s, put amid silence for 2.00 s",)


def unfit(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> an unfit file, and what is said of it."""
    sound, files = burst(RATE_HZ), {}

    def write(name: str, samples: Any, message: str, **how: Any) -> None:
        soundfile.write(folder / name, samples, RATE_HZ, **how)
        files[name] = (folder / name, message)

    def put(name: str, content: bytes, message: str) -> None:
        (folder / name).write_bytes(content)
        files[name] = (folder / name, message)

    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(folder / f"whole.{suffix}", sound, RATE_HZ)
        whole = (folder / f"whole.{suffix}").read_bytes()
        put(f"cut.{suffix}", whole[: len(whole) * 6 // 10], "E_SOUND: Expected ")
    put("header.wav", (folder / "whole.wav").read_bytes()[:30], "E_SOUND: Expected a whole sound, got one that is cut")
    nan = sound.copy()
    nan[7] = np.nan
    write("silence.wav", np.zeros(RATE_HZ), "E_SILENT: Expected a sound, got silence")
    write("offset.wav", np.full(RATE_HZ, 0.5), "E_SILENT: Expected a sound, got silence")
    write("nan.wav", nan, "E_SOUND: Expected finite samples", subtype="FLOAT")
    write("scale.wav", sound * 30_000, "E_SOUND: Expected samples from -1 to 1", subtype="FLOAT")
    write("eight.wav", np.stack([sound] * 8, 1), "E_SOUND: Expected one channel or two, got 8.*pan=mono")
    write("against.wav", np.stack([sound, -sound], 1), "E_SOUND: .* two that cancel each other")
    write("none.wav", np.zeros(0), "E_SOUND: Expected a sound of 0.1 to 600 s, got 0 s")
    write("click.wav", sound[:800], "E_SOUND: Expected a sound of 0.1 to 600 s, got 0.05 s")
    put("cough.webm", b"\x1aE\xdf\xa3" + bytes(90), "E_SOUND: .* got WebM or Matroska.*ffmpeg")
    put("cough.m4a", bytes(4) + b"ftypM4A " + bytes(90), "E_SOUND: .* got MPEG-4.*ffmpeg")
    put("empty.wav", b"", "E_SOUND: Expected a sound, got an empty file")
    put("text.wav", b"not a sound at all, really not", "E_SOUND: .* it cannot be read: Format not recognised")
    put("raw.raw", bytes(1000), "E_SOUND: Expected WAV, FLAC, OGG or MP3")
    files["folder"] = (folder, "E_SOUND: .* no file to read")
    files["absent"] = (folder / "absent.wav", "E_SOUND: .* no file to read")
    return files


def test_what_is_unfit_is_refused_with_code_and_remedy(tmp_path: Path) -> None:
    for name, (path, message) in unfit(tmp_path).items():
        with pytest.raises(CaseError, match=message) as caught:
            read_sound(path)
        assert caught.value.remedy and str(tmp_path) not in caught.value.message, name


def test_a_recording_of_unknown_length_is_read(tmp_path: Path) -> None:
    """A program that writes into a pipe leaves the lengths in the header open."""
    soundfile.write(tmp_path / "a.wav", burst(RATE_HZ), RATE_HZ)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_sound(tmp_path / "a.wav").samples) == 32_000


def test_clipping_and_narrow_bands_are_said(tmp_path: Path) -> None:
    clipped = np.clip(20 * burst(44_100), -1, 1)
    for name, samples, rate, flags in (
        ("clipped.wav", clipped, 44_100, ["N_CLIPPED"]),
        ("softened.wav", 0.5 * clipped, 44_100, ["N_CLIPPED"]),
        ("clipped.mp3", clipped, 44_100, ["N_CLIPPED"]),
        ("loud.wav", burst(44_100) / np.abs(burst(44_100)).max(), 44_100, []),
        ("tone.wav", tone(100, 44_100, swing=1.0), 44_100, []),
        ("telephone.wav", burst(8_000), 8_000, ["N_NARROW_BAND"]),
    ):
        soundfile.write(tmp_path / name, samples, rate)
        assert [flag.partition(":")[0] for flag in read_sound(tmp_path / name).flags] == flags, name
    said = read_sound(tmp_path / "telephone.wav").flags[0]
    assert said == "N_NARROW_BAND: recorded at 8000 Hz: nothing above 4000 Hz"
    found = log_mel(read_sound(tmp_path / "telephone.wav").samples, RATE_HZ)[0].amax(1).numpy()
    above = band_middles_hz(RATE_HZ, 64) > 4800
    assert found[above].max() < found[~above].max() - 40


def test_the_transform_gives_a_fixed_scale_and_says_what_it_saw(tmp_path: Path) -> None:
    read = ReadSoundsd(["cough", "breath", "voice"], size=(64, 63), seconds=1.0)
    samples = burst(RATE_HZ)
    soundfile.write(tmp_path / "loud.wav", samples, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "faint.wav", 0.1 * samples, RATE_HZ, subtype="FLOAT")
    case = read({"cough": tmp_path / "loud.wav", "breath": str(tmp_path / "faint.wav"), "flags": ["N_NO_ROLE: mr"]})
    assert "voice" not in case and case["cough"].shape == (1, 64, 63) and case["cough"].dtype.is_floating_point
    middle = slice(20, 40)  # 20 dB fainter is 20 dB less on the network's scale, too
    fainter = (case["cough"] - case["breath"])[..., middle] * SPREAD_DB
    assert fainter.numpy() == pytest.approx(20, abs=0.01)
    assert case["flags"] == ["N_NO_ROLE: mr"]
    soundfile.write(tmp_path / "short.wav", burst(8_000, 0.5, 0.2), 8_000)
    flags = read({"cough": tmp_path / "short.wav"})["flags"]
    assert [flag.split(": ")[:2] for flag in flags] == [["N_NARROW_BAND", "cough"], ["N_SHORT_SOUND", "cough"]]
    assert read({"case_id": "a"}) == {"case_id": "a"}


@pytest.mark.parametrize("size", [(64,), (64, 0), (64.5, 126), "64", (64, 126, 1)])
def test_sizes_are_two_whole_numbers(size: Any) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected two whole numbers above 0"):
        ReadSoundsd("cough", size=size)
