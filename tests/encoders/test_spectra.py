"""The front ends against plain NumPy, torchaudio, and speechbrain's own numbers."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from encoders.acoustics import torchaudio
from encoders.packaging import drawn_voice
from encoders.spectra import (
    FRONT_ENDS,
    Cepstra,
    EcapaBands,
    Framing,
    LogMel,
    Magnitudes,
    Spectrogram,
    front_end,
    normalised,
    without_quiet_frames,
)
from tests.encoders.backbones.make_ecapa_golden import GOLDEN, SOUNDS


def sound(seed, seconds):
    return torch.from_numpy(drawn_voice(seed, seconds))


def plain_spectrogram(waveform, size, power):
    """Hamming windows of 400 samples in the middle of ``size``, every 160, zeros outside the sound."""
    taper = np.zeros(size)
    taper[(size - 400) // 2 :][:400] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(waveform.astype(np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::160][: len(waveform) // 160 + 1]
    return np.abs(np.fft.rfft(frames * taper, axis=1)) ** power


@pytest.mark.parametrize(("samples", "size", "power"), [(6400, 400, 2.0), (16001, 512, 2.0), (8159, 1024, 1.0)])
def test_a_spectrogram_agrees_with_a_plain_computation(samples, size, power):
    waveform = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    actual = Spectrogram(Framing(size, power=power))(torch.from_numpy(waveform)[None])[0].numpy()
    expected = plain_spectrogram(waveform, size, power)
    assert actual.shape == (samples // 160 + 1, size // 2 + 1)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_ecapa_bands_are_speechbrains():
    seed, seconds = SOUNDS[0]
    torch.testing.assert_close(
        EcapaBands()(sound(seed, seconds)[None])[0], load_file(GOLDEN)["features"], atol=1e-4, rtol=0
    )


def test_ecapa_bands_reach_no_further_than_80_decibels_below_the_loudest():
    half_silent = torch.cat([sound(1, 0.5), torch.zeros(8000)])[None]
    decibels = 10 * (Spectrogram(Framing())(half_silent) @ EcapaBands()._filters).clamp(min=1e-10).log10()
    assert float(decibels.max() - decibels.min()) > 100
    raised = decibels.clamp(min=float(decibels.max()) - 80)
    torch.testing.assert_close(EcapaBands()(half_silent), raised - raised.mean(dim=1, keepdim=True), atol=1e-3, rtol=0)


def test_log_mel_is_the_logarithm_of_torchaudios_energies():
    waveform = sound(2, 1.0)
    theirs = torchaudio().transforms.MelSpectrogram(
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=64,
        window_fn=torch.hamming_window,
        pad_mode="constant",
    )(waveform)
    torch.testing.assert_close(
        LogMel(64, centred=False)(waveform[None])[0], (theirs.T + 1e-6).log(), atol=1e-4, rtol=1e-4
    )


def test_cepstra_are_an_orthonormal_transform_of_the_log_mel_bands():
    waveform = sound(2, 1.0)[None]
    bands = LogMel(64, centred=False)(waveform)
    places = (np.arange(64) + 0.5) * np.pi / 64
    cosines = np.cos(np.outer(np.arange(13), places)) * np.sqrt(2 / 64)
    cosines[0] /= np.sqrt(2)
    expected = normalised(bands @ torch.from_numpy(cosines.T).float(), None, deviation=True)
    torch.testing.assert_close(Cepstra(13)(waveform), expected, atol=1e-3, rtol=1e-3)


def test_magnitudes_show_a_tone_at_its_frequency():
    tone = torch.sin(torch.arange(16000) * 2 * torch.pi * 1000 / 16000)
    tone[8000:] *= 0.1
    pictures = Spectrogram(Framing(1024, power=1.0))(tone[None])[0]
    assert int(pictures[30].argmax()) == 64  # 1000 Hz in steps of 15.625 Hz
    assert float(pictures[70, 64] / pictures[30, 64]) == pytest.approx(0.1, abs=0.01)  # magnitudes, not energies
    assert Magnitudes()(tone[None]).shape == (1, 101, 512)


@pytest.mark.parametrize("kind", ["log_mel", "mfcc", "magnitude"])
def test_bands_have_mean_0_and_deviation_1_over_the_sound(kind):
    features = front_end(kind, 40)(sound(3, 1.7)[None])[0]
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(dim=0, correction=0), torch.ones(40), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_a_padded_sound_has_the_frames_that_it_has_alone_and_zeros_behind(kind):
    made, sounds = front_end(kind, 30), [sound(seed, 0.4 + 0.37 * seed) for seed in range(4)]
    lengths = torch.tensor([len(one) for one in sounds])
    together = made(torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True, padding_value=0.7), lengths)
    for row, one in zip(together, sounds, strict=True):
        alone = made(one[None])[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-4, rtol=1e-4)
        assert float(row[len(alone) :].abs().sum()) == 0


def test_a_click_at_the_end_of_a_padded_sound_is_no_louder_than_where_the_sound_is_alone():
    waveform = 1e-5 * torch.randn(8159, generator=torch.Generator().manual_seed(1))
    waveform[-1] = 1.0  # a frame that only padding adds would be centred on it
    padded = torch.cat([waveform, torch.zeros(3000)])[None]
    bands = EcapaBands()
    alone, together = bands(waveform[None])[0], bands(padded, torch.tensor([8159]))[0]
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_a_constant_sound_has_finite_features(kind):
    assert torch.isfinite(front_end(kind, 20)(torch.full((1, 8000), 0.1))).all()


def test_silence_between_two_sounds_goes_and_the_sounds_stay():
    loud = torch.sin(torch.arange(8000) / 5)
    kept = without_quiet_frames(torch.cat([loud, 1e-4 * loud, loud]))
    assert 16000 <= len(kept) <= 16000 + 2 * 400
    assert float(kept[4000:4400].abs().max()) > 0.9
    torch.testing.assert_close(without_quiet_frames(loud[:300]), loud[:300])
    assert len(without_quiet_frames(torch.zeros(5000))) == 5000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: front_end("lpc", 10), "choose one of: ecapa, log_mel, mfcc, magnitude"),
        (lambda: front_end("mfcc", 0), "at least 1, got 0"),
        (lambda: front_end("magnitude", 514), "1 to 513 frequencies, got 514"),
        (lambda: front_end("mfcc", 200), "1 to 128 coefficients, got 200"),
        (lambda: Framing(taper="kaiser"), "choose one of: hamming, hann"),
        (lambda: Framing(size=399), "at least 400, got 399"),
    ],
)
def test_impossible_front_ends_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
