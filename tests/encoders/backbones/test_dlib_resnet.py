import dlib
import numpy as np
import pytest

from encoders import face
from encoders.backbones.dlib_resnet import CHIP_SIDE, DlibResnet
from encoders.chips import face_chip
from encoders.face import FaceCrop
from encoders.packaging import drawn_face
from encoders.weights import packaged_path

WEIGHTS = packaged_path(face.BACKBONES[0].files[0])


@pytest.fixture(scope="module")
def network():
    return DlibResnet(WEIGHTS, {})


def test_vectors_are_those_of_dlib_at_unit_length(network):
    crop = drawn_face(2)
    vector = network.embed([network.prepare(crop)])[0]
    plain = np.array(
        dlib.face_recognition_model_v1(str(WEIGHTS)).compute_face_descriptor(face_chip(crop, 0.25, CHIP_SIDE))
    )
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


def test_its_own_limits_decide_which_crops_are_usable():
    strict = DlibResnet(WEIGHTS, {"least_eye_distance": 200.0}).prepare(drawn_face(1))
    blank = DlibResnet(WEIGHTS, {"least_contrast": 200.0}).prepare(drawn_face(1))
    assert (strict.reason, blank.reason) == ("too_small", "flat")


def test_unknown_preparation_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no preparation parameter flip"):
        DlibResnet(WEIGHTS, {"flip": True})
    path = tmp_path / "other.dat"
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="does not hold weights"):
        DlibResnet(path, {})
