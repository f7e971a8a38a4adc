"""Sounds as pictures, and what holds for both networks that hear by them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.backbones.inception_resnet_v1 import InceptionResnetPreparation, InceptionResnetV1
from encoders.backbones.inception_resnet_v1_voice import (
    InceptionResnetVoice,
    InceptionResnetVoicePreparation,
    prepare_spectrogram,
)
from encoders.backbones.small_face import SmallFacePreparation
from encoders.backbones.small_picture import (
    SmallPictureNetwork,
    SmallPictureVoice,
    SmallPictureVoicePreparation,
    prepare_picture,
)
from encoders.backbones.sound_pictures import AT_ONCE, PicturedSound, loud_part, sounds_to_pictures
from encoders.encoder import Encoder
from encoders.folder import Branch, Description, FolderFile
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from encoders.weights import sha256_of
from tests.encoders.seeded import seed_network

SMALL = (SmallPictureVoice, SmallPictureVoicePreparation(), SmallPictureNetwork, SmallFacePreparation())
LARGE = (
    InceptionResnetVoice,
    InceptionResnetVoicePreparation(bands=80, dimension=24),
    lambda: InceptionResnetV1(24),
    InceptionResnetPreparation(side=80, dimension=24),
)
# the first components of drawn_voice(1, 0.9), computed with the code as it was first written
GOLDEN = {
    "small_picture_voice": [-0.05726, -0.079543, -0.058144, 0.032434, -0.094519],
    "inception_resnet_v1_voice": [-0.093352, -0.036674, 0.006735, 0.386804, -0.172685],
}


class Hearing:
    """One of the two networks, with weights of a seed."""

    def __init__(self, row, kind, folder):
        self.row, (self.make, self.preparation, network, self.face) = row, kind
        self.bare = network().eval()
        seed_network(self.bare, 4)
        self.weights = folder / "voice.safetensors"
        self.weights.write_bytes(save(self.bare.state_dict()))
        self.served = self.make(self.weights, asdict(self.preparation))


KINDS = {"small_picture_voice": SMALL, "inception_resnet_v1_voice": LARGE}
LONG = pytest.param("inception_resnet_v1_voice", marks=pytest.mark.long)


@pytest.fixture(scope="module", params=KINDS)
def hearing(request, tmp_path_factory):
    return Hearing(request.param, KINDS[request.param], tmp_path_factory.mktemp(request.param))


def test_a_window_is_a_square_with_frequencies_from_top_to_bottom_and_time_from_left_to_right():
    spectra = torch.arange(12.0).reshape(1, 4, 3)  # four frames of three bands
    pictures, owners = sounds_to_pictures(spectra)
    assert pictures.shape == (2, 3, 3, 3) and owners.tolist() == [0, 0]
    for channel in range(3):
        assert pictures[0, channel].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
        assert pictures[1, channel, 0].tolist() == [3, 6, 9]


def test_a_short_sound_comes_round_again_and_what_padding_holds_is_never_seen():
    spectra = torch.full((2, 5, 4), 99.0)
    spectra[0, :3] = torch.arange(3.0)[:, None]
    spectra[1] = torch.arange(5.0)[:, None]
    pictures, owners = sounds_to_pictures(spectra, torch.tensor([3, 5]))
    assert owners.tolist() == [0, 1, 1] and pictures[:, 0, 0].tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [1, 2, 3, 4]]


def test_quiet_stretches_are_left_out_and_a_click_is_not_all_that_is_left():
    loud = np.sin(np.arange(8000)).astype(np.float32)
    pause = np.concatenate([loud, 0.001 * loud, loud])
    assert len(loud_part(pause, PicturedSound())) == pytest.approx(16000, abs=800)
    assert len(loud_part(pause, PicturedSound(quiet_below=80.0))) == 24000
    click = np.full(16000, 1e-4, dtype=np.float32)
    click[8000:8010] = 0.9
    assert len(loud_part(click, PicturedSound())) == 16000


def test_pictures_of_256_bands_reach_up_to_8_khz_31_hz_each():
    seconds = np.arange(32000) / 16000
    first = seconds < 1
    sound = 0.2 * np.sin(2 * np.pi * np.where(first, 1000.0, 6000.0) * seconds)
    spectrum = prepare_spectrogram(sound.astype(np.float32), InceptionResnetVoicePreparation())
    assert spectrum.shape == (201, 256) and spectrum.mean(dim=0).abs().max() < 1e-3
    falls = spectrum[:90].mean(dim=0) - spectrum[110:].mean(dim=0)
    assert falls[32] > 1.5 and falls[192] < -1.5  # 1000 Hz and 6000 Hz


def test_three_frames_of_10_ms_become_one():
    frames = prepare_picture(drawn_voice(1, 1.0), SmallPictureVoicePreparation(joined=1))
    joined = prepare_picture(drawn_voice(1, 1.0), SmallPictureVoicePreparation())
    assert len(joined) == len(frames) // 3
    torch.testing.assert_close(joined[4], frames[12:15].mean(dim=0))


def test_the_level_of_a_sound_does_not_matter(hearing):
    loud = hearing.served.prepare(drawn_voice(1, 1.0))
    torch.testing.assert_close(hearing.served.prepare(0.1 * drawn_voice(1, 1.0)), loud, atol=2e-2, rtol=0)


def test_vectors_are_those_of_the_bare_network_window_by_window(hearing):
    prepared = [hearing.served.prepare(drawn_voice(seed, 0.5 + seed)) for seed in range(3)]
    with torch.no_grad():
        rows = [hearing.bare.features(sounds_to_pictures(one[None])[0]).mean(dim=0) for one in prepared]
    expected = torch.nn.functional.normalize(torch.stack(rows))
    vectors = hearing.served.embed(prepared)
    assert vectors.shape == (3, hearing.preparation.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4 * float(expected.abs().max()))
    assert hearing.served.embed([]).shape == (0, hearing.preparation.dimension)


def test_vectors_of_any_length_are_given_where_the_preparation_asks_for_them(tmp_path):
    hearing = Hearing("inception_resnet_v1_voice", LARGE, tmp_path)
    asked = InceptionResnetVoice(hearing.weights, asdict(hearing.preparation) | {"unit_length": False})
    prepared = [hearing.served.prepare(drawn_voice(1, 0.5))]
    row = asked.embed(prepared)[0]
    assert abs(np.linalg.norm(row) - 1) > 0.01
    np.testing.assert_allclose(row / np.linalg.norm(row), hearing.served.embed(prepared)[0], atol=1e-5)


@pytest.mark.parametrize("hearing", ["small_picture_voice", LONG], indirect=True)
def test_vectors_depend_neither_on_neighbours_nor_on_order_nor_on_the_batch(hearing, monkeypatch):
    seconds = (0.4, 2.3, 0.9, 4.1)
    prepared = [hearing.served.prepare(drawn_voice(seed, length)) for seed, length in enumerate(seconds)]
    alone = np.concatenate([hearing.served.embed([one]) for one in prepared])
    near = {"atol": 1e-4 * float(np.abs(alone).max()), "rtol": 0}
    np.testing.assert_allclose(hearing.served.embed(prepared[::-1])[::-1], alone, **near)
    monkeypatch.setattr(hearing.make, "_BATCH", 2)
    monkeypatch.setattr("encoders.backbones.sound_pictures.AT_ONCE", 2)
    np.testing.assert_allclose(hearing.served.embed(prepared), alone, **near)


def test_in_training_all_windows_are_one_batch_whatever_their_number():
    sounds, network = torch.randn(AT_ONCE + 1, 64, 64), SmallPictureNetwork().train()
    expected = torch.nn.functional.normalize(network.features(sounds_to_pictures(sounds)[0]))
    torch.testing.assert_close(network(sounds), expected)


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (np.zeros(0), "too_short"),
        (np.ones(6399) * 0.1, "too_short"),
        (np.zeros(16000), "silent"),
        (np.full(16000, np.nan), "not_finite"),
    ],
)
def test_sounds_without_a_vector_say_why(hearing, sound, reason):
    assert hearing.served.prepare(sound.astype(np.float32)).reason == reason


@pytest.mark.parametrize("hearing", ["small_picture_voice", LONG], indirect=True)
def test_both_branches_of_a_folder_may_hold_the_same_weights_and_keep_their_golden_vectors(hearing, tmp_path):
    (tmp_path / "both").mkdir()
    branches = {}
    for modality, row, preparation in (
        (Modality.FACE, hearing.row.removesuffix("_voice"), hearing.face),
        (Modality.VOICE, hearing.row, hearing.preparation),
    ):
        path = tmp_path / "both" / f"{modality}.safetensors"
        path.write_bytes(hearing.weights.read_bytes())
        branches[modality] = Branch(row, asdict(preparation), FolderFile(path.name, sha256_of(path)))
    description = Description(
        "both", "both", hearing.preparation.dimension, "nobody", "nothing: its weights are random", branches
    )
    golden = {Modality.FACE: [drawn_face(1)], Modality.VOICE: [drawn_voice(1, 0.9)]}
    encoder = Encoder.create(tmp_path / "both", description, golden, "# random weights\n")
    assert Encoder.load(tmp_path / "both").verify_golden() > 0.99999
    hashes = [one["weights"]["sha256"] for one in _stated(tmp_path / "both")["branches"].values()]
    assert hashes[0] == hashes[1]
    again = encoder.save(tmp_path / "again", own_weights=True)
    voice = [one.encode(Modality.VOICE, [drawn_voice(3, 0.8)])[0].vector for one in (encoder, again)]
    np.testing.assert_array_equal(*voice)
    vector = encoder.encode(Modality.VOICE, golden[Modality.VOICE])[0].vector[:5]
    np.testing.assert_allclose(vector, GOLDEN[hearing.row], atol=2e-4)


def _stated(folder):
    return json.loads((folder / "encoder.json").read_text())


def test_a_face_and_a_sound_of_one_size_go_through_the_network_together(hearing):
    side = hearing.preparation.bands
    faces, sounds = torch.randn(2, 3, side, side), torch.randn(2, side, side)
    with torch.no_grad():
        together = hearing.bare.features(torch.cat([faces, sounds_to_pictures(sounds)[0]]))
        apart = torch.cat([hearing.bare.features(faces), hearing.bare.features(sounds_to_pictures(sounds)[0])])
    torch.testing.assert_close(together, apart, atol=1e-4 * float(apart.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("wrong", [{"least_seconds": 0.0}, {"quiet_below": 0.0}, {"colour": 3}, {"bands": 0}])
def test_impossible_preparation_is_refused_by_name(hearing, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hearing.make(hearing.weights, asdict(hearing.preparation) | wrong)


def test_weights_of_another_network_are_refused(hearing, tmp_path):
    (tmp_path / "other.safetensors").write_bytes(save({"linear.weight": torch.zeros(2, 2)}))
    with pytest.raises(ValueError, match=r"other\.safetensors does not hold the weights of"):
        hearing.make(tmp_path / "other.safetensors", asdict(hearing.preparation))


@pytest.mark.parametrize("hearing", ["small_picture_voice", LONG], indirect=True)
def test_bfloat16_gives_nearly_the_same_vectors(hearing):
    prepared = [hearing.served.prepare(drawn_voice(seed, 1.0)) for seed in range(2)]
    coarse = hearing.make(hearing.weights, asdict(hearing.preparation), "cpu", "bfloat16").embed(prepared)
    exact = hearing.served.embed(prepared)
    assert not np.array_equal(coarse, exact)
    assert ((coarse * exact).sum(axis=1) / np.linalg.norm(coarse, axis=1) / np.linalg.norm(exact, axis=1)).min() > 0.99


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_vectors(hearing):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    prepared = [hearing.served.prepare(drawn_voice(seed, 1.0)) for seed in range(3)]
    on_cuda = hearing.make(hearing.weights, asdict(hearing.preparation), "cuda").embed(prepared)
    np.testing.assert_allclose(on_cuda, hearing.served.embed(prepared), atol=1e-2)
