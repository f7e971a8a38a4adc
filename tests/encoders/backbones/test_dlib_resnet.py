from dataclasses import replace

import dlib
import numpy as np
import pytest

from encoders import face
from encoders.backbones.backbone import Unusable
from encoders.backbones.dlib_resnet import DlibResnet, face_chip
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from encoders.weights import packaged_path

WEIGHTS = packaged_path(face.BACKBONES[0].files[0])


@pytest.fixture(scope="module")
def network():
    return DlibResnet(WEIGHTS, {})


def test_a_chip_is_dlibs_own_chip_where_landmarks_are_whole_pixels():
    crop = drawn_face(1, side=200)
    crop = replace(crop, landmarks=np.round(crop.landmarks) + np.array([[0, 3], [0, 2], [0, -3], [0, -2], [1, 0]]))
    points = [dlib.point(int(x), int(y)) for x, y in crop.landmarks]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 199, 199), points)
    np.testing.assert_array_equal(face_chip(crop, 0.25), dlib.get_face_chip(crop.pixels, shape, 150, 0.25))


def test_vectors_are_those_of_dlib_at_unit_length(network):
    crop = drawn_face(2)
    vector = network.embed([network.prepare(crop)])[0]
    plain = np.array(dlib.face_recognition_model_v1(str(WEIGHTS)).compute_face_descriptor(face_chip(crop, 0.25)))
    np.testing.assert_allclose(vector, plain / np.linalg.norm(plain), atol=1e-5)


def test_a_wider_crop_of_the_same_face_gives_the_same_vector(network):
    crop = drawn_face(3, side=160)
    wider = FaceCrop(
        np.pad(crop.pixels, ((40, 40), (30, 30), (0, 0)), mode="edge"), crop.landmarks + np.array([30, 40])
    )
    first, second = network.embed([network.prepare(crop), network.prepare(wider)])
    assert float(first @ second) > 0.999


def test_a_vector_does_not_depend_on_its_neighbours(network):
    chips = [network.prepare(drawn_face(seed)) for seed in range(4)]
    alone, together = network.embed(chips[2:3])[0], network.embed(chips)[2]
    assert float(alone @ together) >= 0.99999


CROP = drawn_face(1)


@pytest.mark.parametrize(
    ("crop", "reason"),
    [
        (FaceCrop(np.zeros((0, 5, 3), np.uint8), CROP.landmarks), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks + 500), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks * np.nan), "not_finite"),
        (FaceCrop(CROP.pixels, CROP.landmarks / 10), "too_small"),
        (FaceCrop(np.full_like(CROP.pixels, 80), CROP.landmarks), "flat"),
    ],
)
def test_crops_without_a_vector_say_why(network, crop, reason):
    answer = network.prepare(crop)
    assert isinstance(answer, Unusable)
    assert answer.reason == reason and len(answer.detail.split()) > 3


@pytest.mark.parametrize(
    "crop",
    [FaceCrop(np.zeros((9, 9), np.uint8), CROP.landmarks), FaceCrop(CROP.pixels, CROP.landmarks[:4])],
)
def test_what_is_no_face_crop_is_refused(network, crop):
    with pytest.raises(ValueError, match=r"crop is|landmarks are"):
        network.prepare(crop)


def test_unknown_preparation_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no preparation parameter flip"):
        DlibResnet(WEIGHTS, {"flip": True})
    path = tmp_path / "other.dat"
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="does not hold weights"):
        DlibResnet(path, {})
