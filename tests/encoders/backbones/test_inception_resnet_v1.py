import numpy as np
import pytest
import torch
from safetensors.torch import save

from encoders.backbones.inception_resnet_v1 import (
    InceptionResnet,
    InceptionResnetPreparation,
    InceptionResnetV1,
    chips_to_input,
    public_parameters,
)
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from tests.encoders.seeded import seed_network

# What facenet-pytorch 2.6.0's own class gives for the weights of seed 1 and the drawn faces 0, 1 and 2.
REFERENCE = [
    [-0.044664, -0.019963, 0.040065, 0.002075, 0.060526, 0.033386, 0.042518, -0.005051],
    [-0.043861, -0.01801, 0.04161, -0.001812, 0.059481, 0.037215, 0.037964, -0.005547],
    [-0.048955, -0.017986, 0.037396, 0.000955, 0.060301, 0.03059, 0.044146, -0.002959],
]


@pytest.fixture(scope="module")
def network():
    network = InceptionResnetV1().eval()
    seed_network(network, 1)
    return network


@pytest.fixture(scope="module")
def public(network, tmp_path_factory):
    """A file as facenet-pytorch publishes them: the network's parameters and a classifier's."""
    path = tmp_path_factory.mktemp("weights") / "20180402-114759-vggface2.pt"
    torch.save(network.state_dict() | {"logits.weight": torch.zeros(7, 512), "logits.bias": torch.zeros(7)}, path)
    return path


@pytest.fixture(scope="module")
def served(public):
    return InceptionResnet(public, {})


@pytest.fixture(scope="module")
def small(public):
    """The same network over chips of 80 px, which takes a quarter of the time."""
    return InceptionResnet(public, {"side": 80})


def chips_of(network, count=3):
    return [network.prepare(drawn_face(seed)) for seed in range(count)]


def test_a_public_file_gives_the_vectors_of_the_public_class(served):
    vectors = served.embed(chips_of(served))
    assert vectors.shape == (3, 512) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:, :8], REFERENCE, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_parameters_are_named_as_the_public_weights_have_them(network):
    names = set(network.state_dict())
    assert {
        "conv2d_1a.conv.weight", "conv2d_4b.bn.running_var", "repeat_1.0.branch0.conv.weight",
        "repeat_1.4.branch2.2.bn.bias", "repeat_2.9.conv2d.bias", "mixed_6a.branch0.conv.weight",
        "mixed_7a.branch2.2.conv.weight", "repeat_3.4.branch1.1.conv.weight", "block8.conv2d.weight",
        "last_linear.weight", "last_bn.running_mean",
    } <= names  # fmt: skip
    assert len(names) == 714 and sum(one.numel() for one in network.parameters()) == 23_482_624


def test_what_serves_answers_as_the_plainly_written_network(network, small):
    chips = chips_of(small)
    with torch.no_grad():
        expected = network(chips_to_input(torch.from_numpy(np.stack(chips)))).numpy()
    np.testing.assert_allclose(small.embed(chips), expected, atol=2e-6)


def test_chips_are_standardised_as_the_weights_know_them():
    chips = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 80, 80, 2)
    assert chips_to_input(chips)[0, :, 0, 0].tolist() == [-127.5 / 128, 127.5 / 128]


def test_a_chip_shows_the_box_of_mtcnn_with_its_margin_as_a_square(served):
    left, top, right, bottom = InceptionResnetPreparation(margin=0.0).window
    wide = InceptionResnetPreparation(margin=0.2).window
    assert (wide[2] - wide[0]) * 0.8 == pytest.approx(right - left)
    assert wide[1] + wide[3] == pytest.approx(top + bottom)
    # a dot half way across and down the box lands in the middle of the chip
    crop = drawn_face(1, side=512)
    low, side = 128, 256  # the mean face's box within a drawing
    x, y = (round(low + side * (first + last) / 2) for first, last in ((left, right), (top, bottom)))
    pixels = np.full_like(crop.pixels, 90)
    pixels[y - 12 : y + 12, x - 12 : x + 12] = 255
    chip = served.prepare(FaceCrop(pixels, crop.landmarks))
    assert chip.shape == (160, 160, 3) and chip[80, 80].min() == 255 and chip[60, 80].max() == 90


def test_a_vector_depends_neither_on_neighbours_nor_on_the_batch(small, monkeypatch):
    chips = chips_of(small)
    together = small.embed(chips)
    monkeypatch.setattr(InceptionResnet, "_BATCH", 2)
    np.testing.assert_allclose(small.embed(chips[::-1])[::-1], together, atol=1e-5)


def test_own_weights_come_back_from_safetensors_with_the_same_vectors(small, tmp_path):
    path = tmp_path / "face.safetensors"
    path.write_bytes(save(dict(small.own_weights())))
    chips = chips_of(small, 1)
    np.testing.assert_array_equal(InceptionResnet(path, {"side": 80}).embed(chips), small.embed(chips))


def test_a_network_of_another_width_is_trained_and_served(tmp_path):
    network = InceptionResnetV1(dimension=64)
    network(torch.zeros(2, 3, 80, 80)).sum().backward()
    assert network.conv2d_1a.conv.weight.grad is not None
    path = tmp_path / "face.safetensors"
    path.write_bytes(save(network.state_dict()))
    served = InceptionResnet(path, {"dimension": 64, "side": 80})
    assert served.embed(chips_of(served, 1)).shape == (1, 64)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no network", "holds no weights"),
        ({"last_bn.weight": torch.zeros(3)}, "does not hold the weights of InceptionResnetV1"),
        (torch.zeros(3), "holds no tensors by name"),
    ],
)
def test_foreign_weights_are_refused(tmp_path, content, words):
    path = tmp_path / "other.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=words):
        InceptionResnet(path, {})


class Spy:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"last_bn.weight": Spy()}, tmp_path / "spy.pt")
    with pytest.raises(ValueError, match=r"spy\.pt holds no weights that can be read"):
        public_parameters(tmp_path / "spy.pt")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("preparation", [{"sides": 160}, {"side": 40}, {"dimension": 0}, {"margin": 0.9}])
def test_impossible_preparation_is_refused_by_name(public, preparation):
    with pytest.raises(ValueError, match=next(iter(preparation))):
        InceptionResnet(public, preparation)


def test_crops_without_a_face_say_why(served):
    crop = drawn_face(1)
    assert served.prepare(FaceCrop(np.full_like(crop.pixels, 80), crop.landmarks)).reason == "flat"
    assert served.prepare(FaceCrop(crop.pixels, crop.landmarks / 10)).reason == "too_small"


@pytest.mark.cuda
def test_a_cuda_device_gives_the_same_vectors(public, served):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    chips = chips_of(served)
    on_cuda = InceptionResnet(public, {}, "cuda").embed(chips)
    np.testing.assert_allclose(on_cuda, served.embed(chips), atol=2e-3)
    assert (on_cuda * served.embed(chips)).sum(axis=1).min() >= 0.99999
