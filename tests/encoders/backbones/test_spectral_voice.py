"""What holds for every network that the field uses for voices, over spectra and over waveforms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.backbones.backbone import Unusable
from encoders.backbones.spectral_voice import SoundLimits, embed_long
from encoders.encoder import Encoder
from encoders.packaging import drawn_voice
from encoders.space import Modality
from tests.encoders.backbones.field_voices import FIELD_VOICES


@pytest.fixture(scope="module", params=FIELD_VOICES, ids=lambda one: one.row)
def voice(request):
    return request.param


@pytest.fixture(scope="module")
def weights(voice, tmp_path_factory):
    return voice.write(tmp_path_factory.mktemp(voice.row) / "voice.safetensors")


@pytest.fixture(scope="module")
def network(voice, weights):
    return voice.make(weights, voice.stated())


def cosines(left, right):
    """Of rows, after the mean of all was taken away, so that networks of a seed tell sounds apart."""
    centre = right.mean(axis=0)
    left, right = left - centre, right - centre
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_vectors_are_those_of_the_bare_network_run_one_by_one(voice, network):
    bare = voice.network(voice.preparation)
    bare.load_state_dict(dict(network.own_weights()))
    prepared = [network.prepare(drawn_voice(seed, 0.5 + 0.31 * seed)) for seed in range(5)]
    with torch.no_grad():
        shape = (1, 1) if voice.row == "resnet34_voice" else (1,)
        expected = torch.cat([bare.eval()(one.reshape(*shape, *one.shape)) for one in prepared]).numpy()
    vectors = network.embed(prepared)
    assert vectors.shape == (5, voice.preparation.dimension) and vectors.dtype == np.float32
    assert cosines(vectors, expected).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-4)


def test_a_vector_depends_neither_on_neighbours_nor_on_order_nor_on_the_batch(network, monkeypatch):
    prepared = [network.prepare(drawn_voice(seed, seconds)) for seed, seconds in enumerate((0.4, 2.3, 0.9, 1.4))]
    alone = np.concatenate([network.embed([one]) for one in prepared])
    assert cosines(network.embed(prepared), alone).min() >= 0.9999
    assert cosines(network.embed(prepared[::-1])[::-1], alone).min() >= 0.9999
    monkeypatch.setattr(type(network), "_BUDGET", 2 * len(prepared[2]))
    assert cosines(network.embed(prepared), alone).min() >= 0.9999


def test_what_padding_holds_does_not_matter(voice, network):
    bare = voice.network(voice.preparation)
    bare.load_state_dict(dict(network.own_weights()))
    one = network.prepare(drawn_voice(4, 0.6))
    padded = torch.cat([one, torch.full_like(one, 9.0)])
    inputs = [padded, torch.cat([one, one.roll(7)])]
    batch = torch.stack(inputs)[:, None] if voice.row == "resnet34_voice" else torch.stack(inputs)
    with torch.no_grad():
        rows = bare.eval()(batch, torch.tensor([len(one), len(one)]))
    torch.testing.assert_close(rows[0], rows[1], atol=1e-5 * float(rows.abs().max()), rtol=0)
    np.testing.assert_allclose(rows[0].numpy(), network.embed([one])[0], atol=1e-4 * float(rows.abs().max()))


def test_a_row_gets_no_gradient_from_padding_or_neighbours(voice):
    bare = voice.network(voice.preparation).eval()
    one = torch.from_numpy(drawn_voice(1, 1.0))
    batch = (one if "base" in voice.row else one[:4000].reshape(50, 80)[:, : voice.preparation.bands]).repeat(2, 1, 1)
    batch = batch[:, 0] if "base" in voice.row else batch
    batch = (batch[:, None] if voice.row == "resnet34_voice" else batch).clone().requires_grad_()
    time = 2 if voice.row == "resnet34_voice" else 1
    half = batch.shape[time] // 2
    bare(batch, torch.tensor([half, batch.shape[time]]))[0].square().sum().backward()
    mine, padding = batch.grad[0].split([half, batch.shape[time] - half], dim=time - 1)
    assert mine.abs().sum() > 0
    assert padding.abs().sum() == 0 and batch.grad[1].abs().sum() == 0


def test_a_long_sound_is_the_mean_of_its_windows(voice, weights, network):
    short = voice.make(weights, voice.stated(most_seconds=0.5))
    prepared = short.prepare(drawn_voice(5, 1.2))
    window = len(network.prepare(drawn_voice(5, 0.5)))
    starts = np.linspace(0, len(prepared) - window, 3).round().astype(int)
    expected = network.embed([prepared[start : start + window] for start in starts]).mean(axis=0)
    other = short.prepare(drawn_voice(6, 0.4))
    np.testing.assert_allclose(short.embed([other, prepared])[1], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (np.zeros(0), "too_short"),
        (np.ones(6399) * 0.1, "too_short"),
        (np.zeros(16000), "silent"),
        (np.full(16000, np.nan), "not_finite"),
    ],
)
def test_sounds_without_a_vector_say_why(network, sound, reason):
    answer = network.prepare(sound.astype(np.float32))
    assert isinstance(answer, Unusable) and answer.reason == reason


def test_stereo_is_refused(network):
    with pytest.raises(ValueError, match="mono"):
        network.prepare(np.zeros((2, 16000), dtype=np.float32))


def test_own_weights_load_again_and_give_the_same_vectors(voice, network, tmp_path):
    torch.save(dict(network.own_weights()), tmp_path / "own.ckpt")
    prepared = [network.prepare(drawn_voice(2, 0.8))]
    again = voice.make(tmp_path / "own.ckpt", voice.stated())
    np.testing.assert_array_equal(again.embed(prepared), network.embed(prepared))


def test_bfloat16_gives_nearly_the_same_vectors(voice, weights, network):
    prepared = [network.prepare(drawn_voice(seed, 1.0)) for seed in range(3)]
    coarse, exact = voice.make(weights, voice.stated(), "cpu", "bfloat16").embed(prepared), network.embed(prepared)
    assert coarse.dtype == np.float32 and not np.array_equal(coarse, exact)
    assert ((coarse * exact).sum(axis=1) / np.linalg.norm(coarse, axis=1) / np.linalg.norm(exact, axis=1)).min() > 0.99


def test_an_encoder_folder_with_it_encodes_and_keeps_its_golden_vectors(voice, tmp_path):
    encoder = voice.folder(tmp_path / "encoder")
    answers = encoder.encode(Modality.VOICE, [drawn_voice(1, 0.9), np.zeros(16000, np.float32)])
    assert answers[0].vector.shape == (voice.preparation.dimension,) and answers[1].reason == "silent"
    assert Encoder.load(tmp_path / "encoder").verify_golden() > 0.99999
    stated = json.loads((tmp_path / "encoder" / "encoder.json").read_text())["branches"]["voice"]["preparation"]
    assert stated == json.loads(json.dumps(voice.stated()))


@pytest.mark.parametrize("wrong", [{"least_seconds": 0.0}, {"most_seconds": 0.1}, {"colour": 3}, {"dimension": 0}])
def test_impossible_preparation_is_refused_by_name(voice, weights, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        voice.make(weights, voice.stated() | wrong)


def test_weights_of_another_network_are_refused(voice, tmp_path):
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not hold the weights of"):
        voice.make(tmp_path / "other.pt", voice.stated())


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_vectors(voice, weights, network):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    sounds, on_cuda = [drawn_voice(seed, 0.5 + seed) for seed in range(4)], voice.make(weights, voice.stated(), "cuda")
    expected = network.embed([network.prepare(sound) for sound in sounds])
    assert cosines(on_cuda.embed([on_cuda.prepare(sound) for sound in sounds]), expected).min() >= 0.999


def test_no_sounds_have_no_vectors(voice, network):
    assert network.embed([]).shape == (0, voice.preparation.dimension)


def test_batches_hold_no_more_than_their_budget_and_every_window_once():
    shapes, sounds = [], [torch.full((length,), float(length)) for length in (30, 3, 17, 8, 8, 25)]

    def network(windows, lengths):
        shapes.append(windows.shape)
        counted = windows.shape[1] if lengths is None else lengths
        return torch.stack([windows[:, 0], torch.as_tensor(counted).expand(len(windows)).float()], dim=1)

    rows = embed_long(network, sounds, 2, 20, 40)
    assert [row[0] for row in rows] == [30, 3, 17, 8, 8, 25] and rows[0, 1] == 20 and rows[1, 1] == 3
    assert sum(shape[0] for shape in shapes) == 8 and max(shape[0] * shape[1] for shape in shapes) <= 40


def test_limits_are_checked_and_may_be_replaced():
    assert replace(SoundLimits(), most_seconds=5.0).most_seconds == 5.0
    with pytest.raises(ValueError, match=r"at least 0\.1, got 0"):
        SoundLimits(least_seconds=0)
