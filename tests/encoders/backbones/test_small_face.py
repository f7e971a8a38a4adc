from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.backbones.small_face import (
    SmallFace,
    SmallFaceNetwork,
    SmallFacePreparation,
    chips_to_input,
    prepare_chip,
)
from encoders.chips import face_chip
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from tests.encoders.shared_encoder import random_networks

PREPARATION = SmallFacePreparation()


@pytest.fixture(scope="module")
def network():
    return random_networks(3)[0]


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("small_face") / "face.safetensors"
    path.write_bytes(save(network.state_dict()))
    return path


@pytest.fixture(scope="module")
def served(weights):
    return SmallFace(weights, asdict(PREPARATION))


def test_a_chip_shows_the_face_with_three_tenths_of_its_side_around_it():
    chip = prepare_chip(drawn_face(1), PREPARATION)
    assert chip.shape == (64, 64, 3) and chip.dtype == np.uint8
    np.testing.assert_array_equal(chip, face_chip(drawn_face(1), 0.3, 64))


def test_chips_become_channels_first_around_zero():
    chips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8))
    inputs = chips_to_input(chips)
    assert inputs.shape == (2, 3, 16, 16) and inputs.dtype == torch.float32
    assert inputs[1, 2, 3, 4].item() == (chips[1, 3, 4, 2].item() - 127.5) / 64


def test_features_are_those_of_the_bare_network(network, served):
    chips = [prepare_chip(drawn_face(seed), PREPARATION) for seed in range(3)]
    with torch.no_grad():
        expected = network(chips_to_input(torch.from_numpy(np.stack(chips)))).numpy()
    features = served.embed(chips)
    assert features.shape == (3, 128) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_features_depend_neither_on_neighbours_nor_on_order_nor_on_the_batch(served, monkeypatch):
    chips = [prepare_chip(drawn_face(seed), PREPARATION) for seed in range(5)]
    together = served.embed(chips)
    np.testing.assert_allclose(np.concatenate([served.embed([chip]) for chip in chips]), together, atol=1e-5)
    np.testing.assert_allclose(served.embed(chips[::-1])[::-1], together, atol=1e-5)
    monkeypatch.setattr(SmallFace, "_BATCH", 2)
    np.testing.assert_allclose(served.embed(chips), together, atol=1e-5)


def test_every_corner_of_the_chip_reaches_the_features(network):
    chips = torch.zeros(1, 3, 64, 64, requires_grad=True)
    network(chips).square().sum().backward()
    reached = chips.grad.abs().sum(dim=1)[0]
    assert all(reached[y : y + 4, x : x + 4].sum() > 0 for y in (0, 30, 60) for x in (0, 30, 60))


def test_a_network_of_another_side_has_a_larger_map():
    assert SmallFaceNetwork(96).eval()(torch.zeros(2, 3, 96, 96)).shape == (2, 128)


CROP = drawn_face(1)


@pytest.mark.parametrize(
    ("crop", "reason"),
    [
        (FaceCrop(CROP.pixels[:0], CROP.landmarks), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks - 500), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks * np.inf), "not_finite"),
        (FaceCrop(CROP.pixels, CROP.landmarks / 10), "too_small"),
        (FaceCrop(np.full_like(CROP.pixels, 80), CROP.landmarks), "flat"),
    ],
)
def test_crops_without_features_say_why(served, crop, reason):
    assert served.prepare(crop).reason == reason


@pytest.mark.parametrize("preparation", [{"sides": 64}, {"side": 0}, {"side": 72}])
def test_impossible_preparation_is_refused_by_name(weights, preparation):
    with pytest.raises(ValueError, match="side"):
        SmallFace(weights, preparation)


def test_a_side_that_the_weights_do_not_fit_is_refused(weights):
    with pytest.raises(ValueError, match="does not hold the weights of SmallFaceNetwork"):
        SmallFace(weights, {"side": 96})


def test_own_weights_are_the_networks_own(network, served):
    own = served.own_weights()
    assert {name: value.shape for name, value in own.items()} == {n: v.shape for n, v in network.state_dict().items()}
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_features(weights, served):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    chips = [prepare_chip(drawn_face(seed), PREPARATION) for seed in range(5)]
    np.testing.assert_allclose(SmallFace(weights, {}, "cuda").embed(chips), served.embed(chips), atol=1e-2)
