"""The reconstruction is what its docstring says; what holds for every voice network is in test_spectral_voice.py."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.backbones.dimnet_voice import DimnetVoice, DimnetVoiceNetwork, DimnetVoicePreparation, public_parameters
from encoders.packaging import drawn_voice
from encoders.space import Modality
from tests.encoders.backbones.seeded_weights import seed_weights
from training.networks import trainable


def test_it_has_the_widths_kernels_and_strides_that_its_docstring_states():
    network = DimnetVoiceNetwork()
    shapes = [tuple(one.conv.weight.shape) for one in network.halvings]
    assert shapes == [(256, 64, 3), (384, 256, 3), (576, 384, 3), (864, 576, 3)]
    assert [one.conv1.weight.shape[0] for one in network.residuals] == [384, 576, 864]
    assert tuple(network.last.weight.shape) == (256, 864, 3)


def test_a_vector_is_the_plain_mean_over_time():
    network = seed_weights(DimnetVoiceNetwork(DimnetVoicePreparation(channels=(8, 12))), 1)
    frames, features = [], torch.randn(1, 64, 64)
    network.last.register_forward_hook(lambda module, inputs, output: frames.append(output))
    with torch.no_grad():
        vector = network(features)
    assert frames[0].shape == (1, 256, 8)  # 64 frames halved three times
    torch.testing.assert_close(vector, frames[0].mean(dim=2))


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 31, 32, 33])
def test_masks_are_right_for_every_remainder_of_the_strides(frames):
    network = seed_weights(DimnetVoiceNetwork(DimnetVoicePreparation(channels=(8, 12, 16))), 2)
    inputs = torch.randn(1, frames, 64)
    padded = torch.nn.functional.pad(inputs, (0, 0, 0, 40 - frames), value=7.0)
    with torch.no_grad():
        expected, found = network(inputs), network(padded, torch.tensor([frames]))
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_mel_cepstra_are_another_input_than_log_mel_bands(tmp_path):
    path = tmp_path / "voice.safetensors"
    path.write_bytes(save(seed_weights(DimnetVoiceNetwork(DimnetVoicePreparation(channels=(8,))), 1).state_dict()))
    assert set(public_parameters(path)) == set(DimnetVoiceNetwork(DimnetVoicePreparation(channels=(8,))).state_dict())
    rows = [
        one.embed([one.prepare(drawn_voice(1, 1.0))])
        for one in (DimnetVoice(path, {"channels": [8], "features": kind}) for kind in ("log_mel", "mfcc"))
    ]
    assert np.abs(rows[0] - rows[1]).max() > 0.01


def test_quiet_frames_are_left_out_where_that_is_wanted_in_training_as_in_serving(tmp_path):
    path = tmp_path / "voice.safetensors"
    path.write_bytes(save(seed_weights(DimnetVoiceNetwork(DimnetVoicePreparation(channels=(8,))), 1).state_dict()))
    spoken, pause = drawn_voice(1, 1.0), np.zeros(16_000, np.float32)
    paused = np.concatenate([spoken, pause, spoken])
    whole, loud = (DimnetVoice(path, {"channels": [8], "quiet_below": told}) for told in (None, 40.0))
    frames = {one: len(one.prepare(paused)) for one in (whole, loud)}
    assert frames[whole] == pytest.approx(3 * 16_000 / 160, abs=2) and frames[loud] < 0.75 * frames[whole]
    assert len(loud.prepare(pause + 1e-2)) == pytest.approx(100, abs=2)  # nothing is quieter than the loudest
    wanted = DimnetVoicePreparation(channels=(8,), quiet_below=40.0)
    learned = trainable(Modality.VOICE, "dimnet_voice").prepare(paused, wanted)
    np.testing.assert_allclose(np.asarray(loud.prepare(paused)), learned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"channels": ()}, {"channels": (8, 0)}, {"dimension": 0}, {"features": "lpc"}, {"quiet_below": 0.0}]
)
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DimnetVoicePreparation(**wrong)
