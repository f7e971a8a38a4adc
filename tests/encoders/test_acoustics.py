"""The mel front end against a plain NumPy computation of what Resemblyzer's librosa front end does."""

import sys

import numpy as np
import pytest
import torch

from encoders.acoustics import MelBands, MelFrontEnd, sound_level, torchaudio


def slaney_hertz_to_mel(hertz):
    logarithmic = 15 + np.log(np.maximum(hertz, 1e-9) / 1000) / (np.log(6.4) / 27)
    return np.where(hertz < 1000, hertz * 3 / 200, logarithmic)


def slaney_filters(sample_rate, size, bands):
    """(bands, size // 2 + 1) triangles of equal area, linear below 1 kHz and logarithmic above."""
    grid = np.linspace(0, slaney_hertz_to_mel(np.array(sample_rate / 2)), bands + 2)
    corners = np.where(grid < 15, grid * 200 / 3, 1000 * np.exp((grid - 15) * np.log(6.4) / 27))
    hertz = np.arange(size // 2 + 1) * sample_rate / size
    filters = np.zeros((bands, hertz.size))
    for band in range(bands):
        low, centre, high = corners[band : band + 3]
        rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
        filters[band] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def plain_mel(waveform, shape):
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(shape.window) / shape.window)
    padded = np.pad(waveform.astype(np.float64), shape.window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, shape.window)[:: shape.step]
    energies = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return energies @ slaney_filters(shape.sample_rate, shape.window, shape.bands).T


@pytest.mark.parametrize("samples", [6400, 16000, 16001])
def test_mel_bands_agree_with_a_plain_computation(samples):
    shape = MelBands()
    waveform = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    actual = MelFrontEnd(shape)(torch.from_numpy(waveform)).numpy()
    expected = plain_mel(waveform, shape)
    assert actual.shape == (samples // 160 + 1, 40)
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=1e-6)


def test_a_pure_tone_lands_in_the_band_around_it():
    time = np.arange(16000) / 16000
    tone = torch.from_numpy(np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    strongest = int(MelFrontEnd(MelBands())(tone)[50].argmax())
    middle_of_band = np.linspace(0, slaney_hertz_to_mel(np.array(8000.0)), 42)[strongest + 1]
    assert abs(middle_of_band - 15) < 1  # 1 kHz is mel 15 on the slaney scale


def test_torchaudio_is_imported_once_and_works_without_its_extension():
    assert torchaudio() is sys.modules["torchaudio"]
    tone = torch.zeros(1600)
    assert torchaudio().functional.resample(tone, 16000, 8000).shape == (800,)


def test_a_long_sound_has_the_bands_of_its_parts_whatever_is_transformed_at_a_time(monkeypatch):
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32))
    expected = MelFrontEnd(MelBands())(waveform)
    monkeypatch.setattr(MelFrontEnd, "_BLOCK", 7)
    torch.testing.assert_close(MelFrontEnd(MelBands())(waveform), expected, rtol=1e-5, atol=1e-7)


def test_bands_are_those_of_torchaudio_to_rounding():
    waveform = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, 16000).astype(np.float32))
    theirs = torchaudio().transforms.MelSpectrogram(
        n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney"
    )(waveform)
    torch.testing.assert_close(MelFrontEnd(MelBands())(waveform), theirs.T, rtol=1e-5, atol=0)


def test_amplitudes_are_used_where_the_power_is_one():
    tone = torch.from_numpy(np.sin(np.arange(16000) / 3).astype(np.float32))
    energies, amplitudes = (MelFrontEnd(MelBands(power=power))(tone)[50] for power in (2.0, 1.0))
    doubled = MelFrontEnd(MelBands(power=1.0))(2 * tone)[50]
    torch.testing.assert_close(doubled, 2 * amplitudes)
    assert not torch.allclose(energies, amplitudes, rtol=0.1)


def test_the_level_of_a_sound_is_its_root_mean_square_in_decibels():
    tone = np.sin(np.arange(16000) * 0.5).astype(np.float32)
    assert sound_level(tone, 0.4, -60.0) == pytest.approx(-3.01, abs=0.01)
    assert sound_level(tone * np.float32(0.1), 0.4, -60.0) == pytest.approx(-23.01, abs=0.01)


@pytest.mark.parametrize(
    ("sound", "reason"),
    [(np.ones(6399), "too_short"), (np.full(6400, np.nan), "not_finite"), (np.full(6400, 9e-4), "silent")],
)
def test_sounds_without_a_level_say_why(sound, reason):
    answer = sound_level(sound.astype(np.float32), 0.4, -60.0)
    assert answer.reason == reason and len(answer.detail.split()) > 3


def test_only_one_channel_has_a_level():
    with pytest.raises(ValueError, match=r"mono at 16 kHz, got shape \(2, 16000\)"):
        sound_level(np.zeros((2, 16000), np.float32), 0.4, -60.0)
