from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.acoustics import MelBands, MelFrontEnd
from encoders.backbones.small_voice import (
    LAYERS,
    SmallVoice,
    SmallVoicePreparation,
    frames_of,
    prepare_mel,
    windows_of,
)
from encoders.packaging import drawn_voice
from tests.encoders.shared_encoder import random_networks

PREPARATION = SmallVoicePreparation()


@pytest.fixture(scope="module")
def network():
    return random_networks(3)[1]


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("small_voice") / "voice.safetensors"
    path.write_bytes(save(network.state_dict()))
    return path


@pytest.fixture(scope="module")
def served(weights):
    return SmallVoice(weights, asdict(PREPARATION))


def mel(seed, seconds):
    return prepare_mel(drawn_voice(seed, seconds), PREPARATION)


def test_a_sound_becomes_log_mel_bands_by_fixed_numbers():
    sound = drawn_voice(1, 1.0)
    at_level = sound * np.float32(10 ** (-24 / 20) / np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    energies = MelFrontEnd(MelBands())(torch.from_numpy(at_level))
    actual = prepare_mel(sound, PREPARATION)
    assert actual.shape == (101, 40) and actual.dtype == torch.float32
    torch.testing.assert_close(actual, (torch.log(energies + 1e-5) + 8) / 3, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gain", [0.05, 0.9, 30.0])
def test_every_sound_is_brought_to_one_level(gain):
    sound = drawn_voice(1, 1.0)
    torch.testing.assert_close(
        prepare_mel(sound * np.float32(gain), PREPARATION), prepare_mel(sound, PREPARATION), atol=1e-3, rtol=0
    )


def test_a_mel_may_go_into_training(network):
    inputs = mel(1, 1.0)[None]
    assert not inputs.is_inference()
    network(inputs).sum().backward()


def test_the_network_pools_mean_and_deviation_over_time(network):
    inputs = mel(1, 1.0)[None]
    with torch.no_grad():
        hidden = inputs.transpose(1, 2)
        for layer in network.layers:
            hidden = layer(hidden)
        values = hidden[0].double().numpy()
        pooled = np.concatenate([values.mean(axis=1), np.sqrt(values.var(axis=1) + 1e-5)])
        expected = pooled @ network.linear.weight.double().numpy().T + network.linear.bias.double().numpy()
        np.testing.assert_allclose(network(inputs)[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("filler", [0.0, 3.0, -1e4])
def test_padding_changes_nothing_whatever_it_holds(network, filler):
    mels = [mel(seed, seconds) for seed, seconds in ((1, 0.4), (2, 0.77), (3, 1.5))]
    longest = max(map(len, mels)) + 9
    batch = torch.stack([torch.nn.functional.pad(one, (0, 0, 0, longest - len(one)), value=filler) for one in mels])
    with torch.no_grad():
        together = network(batch, torch.tensor([len(one) for one in mels]))
        for row, one in zip(together, mels, strict=True):
            torch.testing.assert_close(row, network(one[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 40, 41, 42, 43])
def test_masks_are_right_for_every_remainder_of_the_strides(network, frames):
    inputs = mel(4, 1.0)[None, :frames]
    padded = torch.nn.functional.pad(inputs, (0, 0, 0, 13), value=7.0)
    with torch.no_grad():
        torch.testing.assert_close(network(padded, torch.tensor([frames])), network(inputs), atol=1e-5, rtol=1e-5)


def test_a_row_gets_no_gradient_from_padding_or_neighbours(network):
    batch = torch.stack([mel(1, 1.0), mel(2, 1.0)]).requires_grad_()
    network(batch, torch.tensor([60, 101]))[0].square().sum().backward()
    assert batch.grad[0, :60].abs().sum() > 0
    assert batch.grad[0, 60:].abs().sum() == 0 and batch.grad[1].abs().sum() == 0


def test_a_constant_sound_has_a_finite_gradient(network):
    batch = torch.zeros(1, 50, 40, requires_grad=True)
    network(batch).sum().backward()
    assert torch.isfinite(batch.grad).all()


def test_features_are_those_of_the_bare_network_run_one_by_one(network, served):
    mels = [mel(seed, 0.5 + 0.9 * seed) for seed in range(5)]
    with torch.no_grad():
        expected = torch.cat([network(one[None]) for one in mels]).numpy()
    features = served.embed(mels)
    assert features.shape == (5, 128) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_features_depend_neither_on_neighbours_nor_on_order_nor_on_the_batch(served, monkeypatch):
    mels = [mel(seed, 0.5 + 0.37 * seed) for seed in range(6)]
    together = served.embed(mels)
    np.testing.assert_allclose(np.concatenate([served.embed([one]) for one in mels]), together, atol=1e-4)
    np.testing.assert_allclose(served.embed(mels[::-1])[::-1], together, atol=1e-4)
    monkeypatch.setattr(SmallVoice, "_BATCH", 2)
    np.testing.assert_allclose(served.embed(mels), together, atol=1e-4)


def test_a_long_sound_is_the_mean_of_its_windows_features(network, served):
    long, most = mel(5, 19.0), frames_of(8.0)
    windows = windows_of(len(long), most)
    assert len(windows) == 3
    with torch.no_grad():
        expected = torch.cat([network(long[None, start:end]) for start, end in windows]).mean(dim=0).numpy()
    np.testing.assert_allclose(served.embed([mel(6, 0.5), long])[1], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("frames", "windows"),
    [(1, [(0, 1)]), (10, [(0, 10)]), (11, [(0, 10), (1, 11)]), (20, [(0, 10), (10, 20)]), (30, 3), (31, 4), (99, 10)],
)
def test_windows_cover_a_sound_and_are_as_few_as_can_be(frames, windows):
    found = windows_of(frames, 10)
    assert found == windows if isinstance(windows, list) else len(found) == windows
    assert {frame for start, end in found for frame in range(start, end)} == set(range(frames))
    assert {end - start for start, end in found} == {min(10, frames)}


def test_a_sound_of_the_most_seconds_is_one_window():
    assert len(mel(1, 8.0)) == frames_of(8.0) == 801


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (np.zeros(0), "too_short"),
        (np.ones(6399) * 0.1, "too_short"),
        (np.zeros(16000), "silent"),
        (np.full(16000, 1e-4), "silent"),
        (np.full(16000, np.nan), "not_finite"),
        (np.concatenate([np.ones(16000), [np.inf]]), "not_finite"),
    ],
)
def test_sounds_without_features_say_why(served, sound, reason):
    assert served.prepare(sound.astype(np.float32)).reason == reason


def test_stereo_is_refused(served):
    with pytest.raises(ValueError, match="mono"):
        served.prepare(np.zeros((2, 16000), dtype=np.float32))


@pytest.mark.parametrize(
    "preparation", [{"windows": 3}, {"bands": 0}, {"least_seconds": 0.0}, {"most_seconds": 0.1}, {"bands": 20}]
)
def test_impossible_preparation_is_refused(weights, preparation):
    with pytest.raises(ValueError, match=rf"{next(iter(preparation))}|does not hold the weights"):
        SmallVoice(weights, preparation)


def test_kernels_are_odd_so_that_masks_know_how_many_frames_a_layer_gives():
    assert all(kernel % 2 for kernel, _ in LAYERS)


def test_own_weights_are_the_networks_own(network, served):
    own = served.own_weights()
    assert set(own) == set(network.state_dict())
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_features(weights, served):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    on_cuda, sounds = SmallVoice(weights, {}, "cuda"), [drawn_voice(seed, 0.5 + seed) for seed in range(4)]
    expected = served.embed([served.prepare(sound) for sound in sounds])
    np.testing.assert_allclose(on_cuda.embed([on_cuda.prepare(sound) for sound in sounds]), expected, atol=1e-2)
