"""The vision transformer for faces, with weights drawn by a seed."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.acoustics import torchaudio
from encoders.backbones.upright_chips import chips_to_input
from encoders.backbones.vit_face import VitFace, VitFaceNetwork, VitFacePreparation
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from tests.encoders.seeded import seed_network

SMALL = VitFacePreparation(side=48, dimension=32, layers=2, heads=2)


@pytest.fixture(scope="module")
def network():
    network = VitFaceNetwork(SMALL).eval()
    seed_network(network, 4)
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("vit_face") / "face.safetensors"
    path.write_bytes(save(network.state_dict()))
    return path


@pytest.fixture(scope="module")
def served(weights):
    return VitFace(weights, asdict(SMALL))


def test_vectors_are_those_of_the_bare_model_at_its_class_token(network, served):
    torchaudio()
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=48, patch_size=16
    )
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(network.state_dict())
    chips = [served.prepare(drawn_face(seed)) for seed in range(3)]
    with torch.no_grad():
        expected = theirs(chips_to_input(torch.from_numpy(np.stack(chips)))).last_hidden_state[:, 0].numpy()
    features = served.embed(chips)
    assert features.shape == (3, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_vectors_do_not_depend_on_neighbours(served, monkeypatch):
    chips = [served.prepare(drawn_face(seed)) for seed in range(5)]
    together = served.embed(chips)
    monkeypatch.setattr(VitFace, "_BATCH", 2)
    np.testing.assert_allclose(served.embed(chips[::-1])[::-1], together, atol=1e-5)
    assert served.embed([]).shape == (0, 32)


def test_every_parameter_learns(network):
    copied = VitFaceNetwork(SMALL)
    copied(torch.randn(2, 3, 48, 48)).square().sum().backward()
    assert {name for name, one in copied.named_parameters() if one.grad is None} == set()
    assert set(copied.state_dict()) == {name for name, _ in copied.named_parameters()}


def test_bfloat16_gives_nearly_the_same_vectors(served, weights):
    chips = [served.prepare(drawn_face(1))]
    coarse, exact = VitFace(weights, asdict(SMALL), "cpu", "bfloat16").embed(chips)[0], served.embed(chips)[0]
    assert not np.array_equal(coarse, exact)
    assert coarse @ exact > 0.99 * np.linalg.norm(coarse) * np.linalg.norm(exact)


def test_crops_without_vectors_say_why(served):
    crop = drawn_face(1)
    assert served.prepare(FaceCrop(np.full_like(crop.pixels, 80), crop.landmarks)).reason == "flat"
    assert served.prepare(FaceCrop(crop.pixels, crop.landmarks / 10)).reason == "too_small"


@pytest.mark.parametrize("wrong", [{"side": 50}, {"heads": 0}, {"dimension": 100}])
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VitFacePreparation(**wrong)


def test_own_weights_are_the_networks_own(network, served):
    own = served.own_weights()
    assert set(own) == set(network.state_dict())
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())
