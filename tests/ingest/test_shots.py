"""Crops of faces, their quality, and the choice of the best."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from encoders.face import DetectedFace
from ingest.crossing import pack, unpack
from ingest.shots import best_shots, face_quality, frontality, keep_shot, overlap, take_shot
from ingest.track import FaceShot

FRONTAL = np.array([[70, 40], [60, 40], [30, 40], [40, 40], [50, 60]], dtype=np.float32)


def face(left=0.0, top=0.0, side=100.0, score=1.0):
    return DetectedFace((left, top, left + side, top + side), score, FRONTAL * side / 100 + (left, top))


def noise(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def shot(time, quality):
    return FaceShot(time, np.zeros((1, 1, 3), np.uint8), FRONTAL, (0, 0, 1, 1), quality)


def test_overlap_of_boxes_is_intersection_over_union():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0


def test_a_crop_is_twice_the_face_box():
    crop = take_shot(noise(900, 900), face(300, 300, 200), None, 1.0)
    assert crop.pixels.shape == (400, 400, 3)


def test_a_crop_of_a_small_face_has_256_pixels_where_the_picture_has_them():
    assert take_shot(noise(900, 900), face(400, 400, 40), None, 1.0).pixels.shape == (256, 256, 3)
    assert take_shot(noise(120, 200), face(80, 40, 40), None, 1.0).pixels.shape == (120, 200, 3)


def test_a_crop_never_exceeds_512_pixels_and_keeps_its_shape():
    height, width, _ = take_shot(noise(1500, 1500), face(0, 400, 600), None, 1.0).pixels.shape
    assert (height, width) == (512, round(900 / 1200 * 512))


def test_landmarks_move_with_the_crop():
    picture = np.zeros((700, 700, 3), np.uint8)
    found = face(200, 200, 300)
    eye = found.landmarks[0].astype(int)
    cv2.circle(picture, (int(eye[0]), int(eye[1])), 8, (255, 255, 255), -1)
    crop = take_shot(picture, found, None, 1.0)
    x, y = crop.landmarks[0]
    rows, columns = np.nonzero(crop.pixels[:, :, 0] > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.6)


def test_a_crop_does_not_hold_on_to_the_whole_picture():
    assert take_shot(noise(900, 900), face(300, 300, 100), None, 1.0).pixels.base is None


def test_a_sharp_face_is_better_than_a_blurred_one():
    picture = noise(200, 200)
    blurred = cv2.GaussianBlur(picture, (0, 0), 6)
    assert face_quality(picture, face(50, 50)) > face_quality(blurred, face(50, 50))


def test_a_large_face_is_better_than_a_small_one():
    assert face_quality(noise(400, 400), face(0, 0, 300)) > face_quality(noise(400, 400), face(0, 0, 30))


def test_a_face_outside_the_picture_has_no_quality():
    assert face_quality(noise(50, 50), face(100, 100)) == 0


def test_a_nose_midway_between_the_eyes_is_frontal():
    turned = FRONTAL.copy()
    turned[4, 0] = 68
    assert frontality(FRONTAL) == pytest.approx(1.0)
    assert frontality(turned) < 0.4


def test_the_best_shots_are_spread_in_time():
    shots = [shot(0.0, 0.9), shot(0.2, 0.89), shot(1.0, 0.5), shot(2.0, 0.6)]
    assert [one.time for one in best_shots(shots, 3, 0.5)] == [0.0, 2.0, 1.0]


def test_shots_of_a_short_sighting_are_taken_close_together():
    assert [one.time for one in best_shots([shot(0.2, 0.5), shot(0.0, 0.4)], 3, 0.5)] == [0.2, 0.0]


@pytest.mark.parametrize("shape", [(40, 30, 3), (1, 1, 3), (0, 0, 3)])
def test_a_kept_look_gives_back_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    shot = FaceShot(1.5, pixels, FRONTAL, (1.0, 2.0, 3.0, 4.0), 0.7)
    back = keep_shot(shot).shot()
    assert isinstance(back, FaceShot) and back.pixels.dtype == np.uint8
    assert back.pixels.shape == shape and (back.pixels == pixels).all()
    assert (back.time, back.box, back.quality) == (1.5, (1.0, 2.0, 3.0, 4.0), 0.7)
    assert back.landmarks is shot.landmarks


def test_a_kept_look_crosses_as_any_look():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    back = keep_shot(FaceShot(None, pixels, FRONTAL.astype(np.float32), (1.0, 2.0, 3.0, 4.0), 0.7)).shot()
    there = unpack(pack(back), FaceShot)
    assert (there.pixels == pixels).all() and type(there) is FaceShot


def test_a_damaged_look_is_told():
    kept = keep_shot(FaceShot(None, np.zeros((8, 9, 3), np.uint8), FRONTAL, (0, 0, 1, 1), 0.7))
    with pytest.raises(ValueError, match="damaged"):
        _ = replace(kept, packed=kept.packed[:9]).pixels
