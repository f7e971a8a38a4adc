from concurrent.futures import ThreadPoolExecutor

import cv2
import dlib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from encoders import face
from encoders.backbones.dlib_resnet import CHIP_SIDE, DlibResnet, FaceResnet, chips_to_input, chips_to_serving_input
from encoders.chips import face_chip
from encoders.face import FaceCrop, load_face_detector
from encoders.packaging import drawn_face
from encoders.weights import packaged_path

WEIGHTS = packaged_path(face.BACKBONES[0].files[0])


@pytest.fixture(scope="module")
def network():
    return DlibResnet(WEIGHTS, {})


@pytest.fixture(scope="module")
def original():
    """dlib's own network: chips to (chips, 128) of unit length."""
    model = dlib.face_recognition_model_v1(str(WEIGHTS))

    def embed(chips):
        vectors = np.array(model.compute_face_descriptor(chips))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def cosines(first, second):
    return (first.astype(np.float64) * second).sum(axis=1) / np.linalg.norm(first, axis=1)


def odd_chips():
    """Chips that nobody takes for a face: noise, sharp and soft, squares, black, white, one colour."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (2, CHIP_SIDE, CHIP_SIDE, 3)).astype(np.uint8)
    squares = cv2.resize(noise[0][:5, :5], (CHIP_SIDE, CHIP_SIDE), interpolation=cv2.INTER_NEAREST)
    plain = [np.full((CHIP_SIDE, CHIP_SIDE, 3), colour, np.uint8) for colour in (0, 255, (200, 30, 90))]
    return [noise[0], cv2.GaussianBlur(noise[1], (0, 0), 6), squares, *plain]


def test_vectors_are_those_of_dlib_at_unit_length(network):
    crop = drawn_face(2)
    vector = network.embed([network.prepare(crop)])[0]
    plain = np.array(
        dlib.face_recognition_model_v1(str(WEIGHTS)).compute_face_descriptor(face_chip(crop, 0.25, CHIP_SIDE))
    )
    np.testing.assert_allclose(vector, plain / np.linalg.norm(plain), atol=1e-5)


def test_any_chip_has_dlibs_vector(network, original):
    chips = odd_chips() + [face_chip(drawn_face(seed, side=80 + 40 * seed), 0.25, CHIP_SIDE) for seed in range(4)]
    vectors = network.embed(chips)
    assert vectors.dtype == np.float32
    assert cosines(vectors, original(chips)).min() >= 0.999999


def test_photographed_faces_have_dlibs_vectors(network, original, shared_media):
    detector, chips = load_face_detector(), []
    for path in sorted((shared_media / "faces" / "lfw").glob("*/*"))[::9]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        chips += [network.prepare(FaceCrop(picture, found.landmarks)) for found in detector.detect(picture)[:1]]
    assert len(chips) >= 3
    assert cosines(network.embed(chips), original(chips)).min() >= 0.999999


def test_what_serves_answers_as_the_plainly_written_network(network):
    plain = FaceResnet().eval()
    plain.load_state_dict(dict(network.own_weights()))
    chips = np.stack([network.prepare(drawn_face(seed)) for seed in range(3)])
    with torch.no_grad():
        expected = plain(chips_to_input(torch.from_numpy(chips))).numpy()
    actual = network._served(chips_to_serving_input(torch.from_numpy(chips)))
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_a_wider_crop_of_the_same_face_gives_the_same_vector(network):
    crop = drawn_face(3, side=160)
    wider = FaceCrop(
        np.pad(crop.pixels, ((40, 40), (30, 30), (0, 0)), mode="edge"), crop.landmarks + np.array([30, 40])
    )
    first, second = network.embed([network.prepare(crop), network.prepare(wider)])
    assert float(first @ second) > 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_vector_does_not_depend_on_its_neighbours(precision, monkeypatch):
    network = DlibResnet(WEIGHTS, {}, precision=precision)
    chips = [network.prepare(drawn_face(seed)) for seed in range(5)]
    together = network.embed(chips)
    alone = np.concatenate([network.embed([chip]) for chip in chips])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    monkeypatch.setattr(DlibResnet, "_BATCH", 2)
    np.testing.assert_allclose(network.embed(chips[::-1])[::-1], together, atol=1e-6)


def test_the_same_chips_give_the_same_vectors_to_every_thread(network):
    chips = [network.prepare(drawn_face(seed)) for seed in range(3)]
    expected = network.embed(chips)
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: network.embed(chips), range(8)):
            np.testing.assert_array_equal(answer, expected)


def test_no_chips_have_no_vectors(network):
    assert network.embed([]).shape == (0, 128)


def test_bfloat16_stays_close_where_a_face_is_clear(network):
    chips = [network.prepare(drawn_face(seed)) for seed in range(4)]
    quick = DlibResnet(WEIGHTS, {}, precision="bfloat16").embed(chips)
    assert 0.9999 <= cosines(quick, network.embed(chips)).min() < 0.9999999


def test_own_weights_come_back_from_safetensors_with_the_same_vectors(network, tmp_path):
    path = tmp_path / "face.safetensors"
    path.write_bytes(save(dict(network.own_weights())))
    chips = [network.prepare(drawn_face(seed)) for seed in range(2)]
    np.testing.assert_array_equal(DlibResnet(path, {}).embed(chips), network.embed(chips))
    path.write_bytes(save({"linear.weight": torch.zeros(128, 256)}))
    with pytest.raises(ValueError, match=r"face\.safetensors does not hold the weights of FaceResnet"):
        DlibResnet(path, {})


def test_its_own_limits_decide_which_crops_are_usable():
    strict = DlibResnet(WEIGHTS, {"least_eye_distance": 200.0}).prepare(drawn_face(1))
    blank = DlibResnet(WEIGHTS, {"least_contrast": 200.0}).prepare(drawn_face(1))
    assert (strict.reason, blank.reason) == ("too_small", "flat")


def test_unknown_preparation_precision_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no preparation parameter flip"):
        DlibResnet(WEIGHTS, {"flip": True})
    with pytest.raises(ValueError, match="no precision 'int8'; choose one of: auto, float32, bfloat16"):
        DlibResnet(WEIGHTS, {}, precision="int8")
    path = tmp_path / "other.dat"
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="does not hold weights"):
        DlibResnet(path, {})


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_a_cuda_device_gives_dlibs_vectors(original, precision, least):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    on_cuda = DlibResnet(WEIGHTS, {}, "cuda", precision)
    chips = [on_cuda.prepare(drawn_face(seed)) for seed in range(40)]
    assert cosines(on_cuda.embed(chips), original(chips)).min() >= least
