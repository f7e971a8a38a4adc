import numpy as np
import pytest
import torch

from encoders import voice
from encoders.backbones.backbone import Unusable
from encoders.backbones.ge2e import GE2E, GE2ENetwork, window_starts
from encoders.packaging import drawn_voice
from encoders.weights import packaged_path

WEIGHTS = packaged_path(voice.BACKBONES[0].files[0])


@pytest.fixture(scope="module")
def network():
    return GE2E(WEIGHTS, {})


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, [0]), (160, [0]), (161, [0, 1]), (240, [0, 80]), (241, [0, 80, 81]), (400, [0, 80, 160, 240])],
)
def test_windows_overlap_by_half_and_the_last_ends_with_the_sound(frames, starts):
    assert window_starts(frames, 160, 80) == starts


def test_vectors_have_unit_length_and_no_negative_component(network):
    vectors = network.embed([network.prepare(drawn_voice(seed, 1.0 + seed)) for seed in range(3)])
    assert vectors.shape == (3, 256) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.min() >= 0


def test_a_vector_is_the_mean_direction_of_its_windows_run_one_by_one(network):
    mel = network.prepare(drawn_voice(3, 4.1))
    plain = GE2ENetwork()
    plain.load_state_dict(dict(network.own_weights()))
    with torch.inference_mode():
        windows = [plain(mel[None, start : start + 160])[0] for start in window_starts(len(mel), 160, 80)]
    mean = torch.stack(windows).mean(dim=0)
    np.testing.assert_allclose(network.embed([mel])[0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_a_short_sound_is_run_at_its_own_length_whatever_shares_its_batch(network):
    short, long = (network.prepare(drawn_voice(seed, seconds)) for seed, seconds in ((4, 0.5), (5, 1.3)))
    with torch.inference_mode():
        alone = network._network(short[None])[0].numpy()
    together = network.embed([long, short])[1]
    assert float(alone @ together) >= 0.99999
    padded = torch.nn.functional.pad(short, (0, 0, 0, 160 - len(short)))
    assert float(network.embed([padded])[0] @ together) < 0.999  # padding with zeros would be another vector


def test_soft_sounds_are_raised_and_give_the_same_vector(network):
    voice_at_level = drawn_voice(6, 2.0) * 0.2
    vectors = network.embed([network.prepare(voice_at_level), network.prepare(voice_at_level * 0.1)])
    assert float(vectors[0] @ vectors[1]) >= 0.9999


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
def test_sounds_without_a_vector_say_why(network, sound, reason):
    answer = network.prepare(sound.astype(np.float32))
    assert isinstance(answer, Unusable)
    assert answer.reason == reason and len(answer.detail.split()) > 3


def test_a_sound_just_long_enough_has_a_vector(network):
    assert not isinstance(network.prepare(drawn_voice(1, 0.4)), Unusable)


def test_stereo_is_refused(network):
    with pytest.raises(ValueError, match="mono"):
        network.prepare(np.zeros((2, 16000), dtype=np.float32))


@pytest.mark.parametrize(
    "preparation", [{"windows": 3}, {"step_frames": 0}, {"step_frames": 161}, {"least_seconds": 0.0}]
)
def test_impossible_preparation_is_refused_by_name(preparation):
    with pytest.raises(ValueError, match=next(iter(preparation))):
        GE2E(WEIGHTS, preparation)


def test_a_file_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"model_state": {"linear.bias": torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match=r"lacks the parameters.*lstm"):
        GE2E(path, {})
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="does not hold weights"):
        GE2E(path, {})


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_vectors(network):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    sounds = [drawn_voice(seed, 0.5 + seed) for seed in range(4)]
    on_cuda = GE2E(WEIGHTS, {}, "cuda")
    expected = network.embed([network.prepare(sound) for sound in sounds])
    actual = on_cuda.embed([on_cuda.prepare(sound) for sound in sounds])
    assert (expected * actual).sum(axis=1).min() >= 0.99999
