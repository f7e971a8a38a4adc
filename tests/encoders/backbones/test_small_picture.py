"""The small network as it sees faces; how it hears is in test_sound_pictures."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.backbones.small_face import SmallFacePreparation, chips_to_input
from encoders.backbones.small_picture import FEATURES, SmallPicture, SmallPictureNetwork, SmallPictureVoicePreparation
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from tests.encoders.seeded import seed_network

# the first components of drawn_face(1), computed with the code as it was first written
GOLDEN = [-0.049897, -0.01929, -0.087572, 0.022663, -0.086686]


@pytest.fixture(scope="module")
def network():
    network = SmallPictureNetwork().eval()
    seed_network(network, 4)
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("small_picture") / "face.safetensors"
    path.write_bytes(save(network.state_dict()))
    return path


@pytest.fixture(scope="module")
def served(weights):
    return SmallPicture(weights, asdict(SmallFacePreparation()))


def test_features_are_those_of_the_bare_network_and_of_the_day_they_were_first_computed(network, served):
    chips = [served.prepare(drawn_face(seed)) for seed in range(3)]
    with torch.no_grad():
        expected = network(chips_to_input(torch.from_numpy(np.stack(chips)))).numpy()
    features = served.embed(chips)
    assert features.shape == (3, FEATURES) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(features[1, :5], GOLDEN, atol=2e-5)


def test_features_depend_neither_on_neighbours_nor_on_order_nor_on_the_batch(served, monkeypatch):
    chips = [served.prepare(drawn_face(seed)) for seed in range(5)]
    together = served.embed(chips)
    near = {"atol": 1e-5 * float(np.abs(together).max()), "rtol": 0}
    np.testing.assert_allclose(np.concatenate([served.embed([chip]) for chip in chips]), together, **near)
    monkeypatch.setattr("encoders.backbones.small_picture.AT_ONCE", 2)
    np.testing.assert_allclose(served.embed(chips[::-1])[::-1], together, **near)
    assert served.embed([]).shape == (0, FEATURES)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 112), (97, 33), (16, 16)])
def test_pictures_of_any_height_and_width_have_as_many_features(network, height, width):
    with torch.no_grad():
        assert network(torch.randn(2, 3, height, width)).shape == (2, FEATURES)


def test_where_something_is_counts(network):
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 8:24, 8:24] = 2.0
    with torch.no_grad():
        here, below, beside = (network(picture.roll(shift, dims=(2, 3))) for shift in ((0, 0), (32, 0), (0, 32)))
    assert (here - below).norm() > 0.1 * here.norm() and (here - beside).norm() > 0.1 * here.norm()


def test_bfloat16_gives_nearly_the_same_features(served, weights):
    chips = [served.prepare(drawn_face(1))]
    coarse, exact = SmallPicture(weights, {}, "cpu", "bfloat16").embed(chips)[0], served.embed(chips)[0]
    assert not np.array_equal(coarse, exact)
    assert coarse @ exact > 0.99 * np.linalg.norm(coarse) * np.linalg.norm(exact)


def test_crops_without_features_say_why(served):
    crop = drawn_face(1)
    assert served.prepare(FaceCrop(np.full_like(crop.pixels, 80), crop.landmarks)).reason == "flat"
    assert served.prepare(FaceCrop(crop.pixels, crop.landmarks / 10)).reason == "too_small"


@pytest.mark.parametrize("wrong", [{"joined": 0}, {"dimension": 64}])
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SmallPictureVoicePreparation(**wrong)


def test_own_weights_are_the_networks_own(network, served):
    own = served.own_weights()
    assert set(own) == set(network.state_dict())
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())
