from dataclasses import replace

import dlib
import numpy as np
import pytest

from encoders.backbones.backbone import Unusable
from encoders.chips import MEAN_LANDMARKS, face_chip, usable_chip
from encoders.face import FaceCrop
from encoders.packaging import drawn_face

CROP = drawn_face(1)


def chip_of(crop):
    return usable_chip(crop, padding=0.25, side=64, least_eye_distance=8.0, least_contrast=2.0)


@pytest.mark.parametrize(("side", "padding"), [(150, 0.25), (64, 0.5)])
def test_a_chip_is_dlibs_own_chip_where_landmarks_are_whole_pixels(side, padding):
    crop = drawn_face(1, side=200)
    crop = replace(crop, landmarks=np.round(crop.landmarks) + np.array([[0, 3], [0, 2], [0, -3], [0, -2], [1, 0]]))
    points = [dlib.point(int(x), int(y)) for x, y in crop.landmarks]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 199, 199), points)
    expected = dlib.get_face_chip(crop.pixels, shape, side, padding)
    np.testing.assert_array_equal(face_chip(crop, padding, side), expected)


def test_landmarks_come_to_lie_where_the_mean_face_has_them():
    pixels = np.zeros((200, 200, 3), np.uint8)
    landmarks = (60 + 100 * MEAN_LANDMARKS @ np.array([[0.9, 0.3], [-0.3, 0.9]])).astype(np.float32)
    for x, y in landmarks.round().astype(int):
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    chip = face_chip(FaceCrop(pixels, landmarks), padding=0.5, side=128)
    for x, y in (MEAN_LANDMARKS + 0.5) / 2 * 128:
        assert chip[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].max() > 150


def test_a_chip_of_a_good_crop_is_returned_as_it_is():
    np.testing.assert_array_equal(chip_of(CROP), face_chip(CROP, 0.25, 64))


@pytest.mark.parametrize(
    ("crop", "reason"),
    [
        (FaceCrop(np.zeros((0, 5, 3), np.uint8), CROP.landmarks), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks + 500), "no_face"),
        (FaceCrop(CROP.pixels, CROP.landmarks * np.nan), "not_finite"),
        (FaceCrop(CROP.pixels, CROP.landmarks / 10), "too_small"),
        (FaceCrop(np.full_like(CROP.pixels, 80), CROP.landmarks), "flat"),
        (FaceCrop(np.full_like(CROP.pixels, 80), CROP.landmarks - 24), "flat"),  # the chip reaches into black
    ],
)
def test_crops_without_a_chip_say_why(crop, reason):
    answer = chip_of(crop)
    assert isinstance(answer, Unusable)
    assert answer.reason == reason and len(answer.detail.split()) > 3


@pytest.mark.parametrize(
    "crop",
    [
        FaceCrop(np.zeros((9, 9), np.uint8), CROP.landmarks),
        FaceCrop(CROP.pixels.astype(np.float32), CROP.landmarks),
        FaceCrop(CROP.pixels, CROP.landmarks[:4]),
    ],
)
def test_what_is_no_face_crop_is_refused(crop):
    with pytest.raises(ValueError, match=r"crop is|landmarks are"):
        chip_of(crop)
