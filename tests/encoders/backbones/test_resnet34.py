"""Against transformers' own ResNet, whose parameters have other names; torchvision gave 0 difference by hand."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.acoustics import torchaudio
from encoders.backbones.resnet34 import (
    ResNet34Face,
    ResNet34FacePreparation,
    ResNet34Network,
    ResNet34VoicePreparation,
    public_parameters,
)
from encoders.backbones.upright_chips import chips_to_input
from encoders.packaging import drawn_face
from tests.encoders.backbones.seeded_weights import seed_weights

SMALL = ResNet34FacePreparation(side=64, width=4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet34") / "resnet34.pth"
    torch.save(seed_weights(ResNet34Network(3, SMALL.dimension, SMALL.width), 4).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def served(weights):
    return ResNet34Face(weights, asdict(SMALL))


def their_name(name):
    """What transformers calls a parameter of torchvision's name."""
    stem, ending = name.rsplit(".", 1)
    if stem in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if stem == 'conv1' else 'normalization'}.{ending}"
    layer, block, part = stem.split(".", 2)
    kind = "convolution" if part in ("conv1", "conv2", "downsample.0") else "normalization"
    place = "shortcut" if part.startswith("downsample") else f"layer.{int(part[-1]) - 1}"
    return f"encoder.stages.{int(layer[-1]) - 1}.layers.{block}.{place}.{kind}.{ending}"


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 122, 122), (3, 64, 64), (1, 101, 64)])
def test_the_map_before_the_embedding_is_that_of_transformers_resnet(channels, height, width):
    torchaudio()
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        num_channels=channels, layer_type="basic", depths=[3, 4, 6, 3], hidden_sizes=[8, 16, 32, 64], embedding_size=8
    )
    ours = seed_weights(ResNet34Network(channels, 16, 8), 1)
    theirs = transformers.ResNetModel(config).eval()
    theirs.load_state_dict({their_name(k): v for k, v in ours.state_dict().items() if not k.startswith("fc.")})
    inputs = torch.rand(2, channels, height, width) * 2 - 1
    with torch.no_grad():
        pooled = theirs(inputs).pooler_output.flatten(1)
        torch.testing.assert_close(
            ours(inputs), ours.fc(pooled), rtol=1e-4, atol=1e-4 * float(ours(inputs).abs().max())
        )


def test_parameters_have_torchvisions_names_and_the_published_sizes():
    state = ResNet34Network(3, 1000).state_dict()
    assert len(state) == 218 and sum(one.numel() for one in ResNet34Network(3, 1000).parameters()) == 21_797_672
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.2.bn2.running_var": (512,),
        "fc.weight": (1000, 512),
    }.items():
        assert tuple(state[name].shape) == shape
    assert "layer1.0.downsample.0.weight" not in state


def test_the_public_checkpoint_format_is_read(weights):
    assert set(public_parameters(weights)) == set(ResNet34Network(3, 256, 4).state_dict())


def test_an_embedding_of_another_size_is_refused(weights):
    with pytest.raises(ValueError, match="does not hold the weights of ResNet34Network"):
        ResNet34Face(weights, asdict(SMALL) | {"dimension": 128})


def test_faces_become_vectors_that_do_not_depend_on_their_batch(served, monkeypatch):
    chips = [served.prepare(drawn_face(seed)) for seed in range(5)]
    alone = np.concatenate([served.embed([chip]) for chip in chips])
    assert alone.shape == (5, 256) and alone.dtype == np.float32
    monkeypatch.setattr(ResNet34Face, "_BATCH", 2)
    np.testing.assert_allclose(served.embed(chips), alone, atol=1e-4 * np.abs(alone).max())
    assert served.embed([]).shape == (0, 256)


def test_pixels_come_to_lie_between_minus_1_and_1():
    chips = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert chips_to_input(chips).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])


def test_a_blank_or_too_small_face_says_why(served):
    face = drawn_face(1)
    blank = type(face)(np.full_like(face.pixels, 90), face.landmarks)
    assert served.prepare(blank).reason == "flat"
    assert served.prepare(drawn_face(1, side=12)).reason == "too_small"


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 34, 63, 64, 65])
def test_masks_are_right_for_every_remainder_of_the_strides(rows):
    network = seed_weights(ResNet34Network(1, 8, 4), 2)
    inputs = torch.randn(1, 1, rows, 20)
    padded = torch.nn.functional.pad(inputs, (0, 0, 0, 70 - rows), value=7.0)
    with torch.no_grad():
        expected = network(inputs)
        found = network(padded, torch.tensor([rows]))
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet34FacePreparation(side=16), "side must be at least 32"),
        (lambda: ResNet34FacePreparation(width=0), "width and dimension must be at least 1"),
        (lambda: ResNet34VoicePreparation(features="lpc"), "there are no features 'lpc'"),
    ],
)
def test_impossible_preparation_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_own_weights_are_the_networks_own(served, weights, tmp_path):
    (tmp_path / "own.safetensors").write_bytes(save(dict(served.own_weights())))
    chips = [served.prepare(drawn_face(3))]
    again = ResNet34Face(tmp_path / "own.safetensors", asdict(SMALL))
    np.testing.assert_array_equal(again.embed(chips), served.embed(chips))


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_vectors(served, weights):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    chips = [served.prepare(drawn_face(seed)) for seed in range(4)]
    expected, actual = served.embed(chips), ResNet34Face(weights, asdict(SMALL), "cuda").embed(chips)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    assert ((expected * actual).sum(axis=1) / lengths).min() >= 0.9999
