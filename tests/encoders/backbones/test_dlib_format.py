import numpy as np
import pytest
import torch

from encoders import face
from encoders.backbones.dlib_format import BLOCKS, read_face_network
from encoders.weights import packaged_path

WEIGHTS = packaged_path(face.BACKBONES[0].files[0])
CON_4 = 334  # byte of the first layer's text, which its length precedes
SHAPE = CON_4 + 7  # byte of the first tensor's version
VALUES = SHAPE + 2 + 3 + 2 + 2 + 2  # version, 4736 in two bytes, 1, 1, 1


@pytest.fixture(scope="module")
def content():
    return WEIGHTS.read_bytes()


@pytest.fixture
def refusal(tmp_path):
    """Why a file of this content is refused."""

    def read(content):
        path = tmp_path / "face.dat"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"face\.dat does not hold weights of dlib's face network: ") as caught:
            read_face_network(path)
        return str(caught.value).split("network: ")[1]

    return read


def replaced(content, place, piece):
    return content[:place] + piece + content[place + len(piece) :]


def test_all_parameters_of_29_convolutions_their_scales_and_the_last_layer_are_read():
    found = read_face_network(WEIGHTS)
    convolutions = [name for name in found if name.endswith("0.weight")]
    assert len(convolutions) == 1 + 2 * len(BLOCKS) == 29
    assert len(found) == 4 * 29 + 1
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in found.values())
    assert found["linear.weight"].shape == (128, 256)


def test_a_convolutions_values_are_those_at_its_place_in_the_file(content):
    weight = read_face_network(WEIGHTS)["entry.0.weight"].numpy()
    np.testing.assert_array_equal(weight.ravel(), np.frombuffer(content, "<f4", weight.size, VALUES))


@pytest.mark.parametrize("kept", [0, 1, 10, 25, CON_4 + 3, SHAPE + 3, VALUES + 5, 19_000, 1_000_000, -1])
def test_a_file_that_ends_early_is_refused_with_the_place(content, refusal, kept):
    assert "it ends within" in refusal(content[:kept])


def test_what_follows_the_network_is_refused(content, refusal):
    assert refusal(content + b"more") == "4 bytes follow the network's end"


@pytest.mark.parametrize(
    ("place", "piece", "reason"),
    [
        (0, b"\x01\x02", r"the version of the network at byte 0 is (2,), expected (1,)"),
        (0, b"\x09", "byte 0 does not begin an integer"),
        (0, b"\x71", "byte 0 does not begin an integer"),
        (3, b"\x0e", "there is no 'loss_metric_2' at byte 2"),
        (30, b"\x03", "the versions of the layers at byte 29 is"),
        (CON_4 + 1, b"c0n", "there is no 'con_4' at byte 334"),
        (SHAPE + 2, b"\x02\xff\xff", "the shape of entry's convolution at byte 341 is (2, 65535, 1, 1, 1)"),
        (SHAPE + 2, b"\x88" + b"\xff" * 8, "the shape of entry's convolution"),
        (VALUES, b"\x00\x00\xc0\x7f", "entry's convolution holds values that are not finite"),
        (VALUES, b"\x00\x00\x80\xff", "entry's convolution holds values that are not finite"),
        (VALUES + 4 * 4736 + 1, b"\x10", "the geometry of entry's convolution"),
    ],
)
def test_a_spoiled_byte_is_refused_with_the_place(content, refusal, place, piece, reason):
    assert reason in refusal(replaced(content[:30_000], place, piece))


def test_a_network_that_subtracts_another_colour_is_refused(content, refusal):
    red = content.index(b"input_rgb_image_sized") + len(b"input_rgb_image_sized") + 1
    assert refusal(replaced(content[:1000], red, b"\x00\x00\x00")) == "the mean red is not 122.782"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "face.dat"
    with path.open("wb") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"face\.dat .* more than 67108864 bytes"):
        read_face_network(path)


def test_a_file_that_is_not_there_is_not_a_value_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_face_network(tmp_path / "none.dat")
