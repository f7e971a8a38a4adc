import csv
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from encoders.face import DETECTORS, MOST_WORKING_PIXELS, load_face_detector


@pytest.fixture(scope="module")
def detector():
    return load_face_detector()


@pytest.fixture(scope="module")
def portrait(shared_media):
    """One photograph of one person, (250, 250, 3), the face in its middle."""
    path = sorted((shared_media / "faces" / "lfw" / "Colin_Powell").iterdir())[0]
    return np.asarray(Image.open(path).convert("RGB"))


def centre(box):
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def test_the_face_of_a_portrait_is_found_with_landmarks_in_dlibs_order(detector, portrait):
    (face,) = detector.detect(portrait)
    assert np.abs(centre(face.box) - 125).max() < 15
    assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32
    x, y = face.landmarks.T
    assert x[0] > x[1] > x[3] > x[2]  # outer, inner; inner, outer from right to left
    assert y[4] > y[:4].max()  # the nose is below the eyes


def test_boxes_and_landmarks_follow_the_picture_when_it_is_enlarged(detector, portrait):
    (small,) = detector.detect(portrait)
    (large,) = detector.detect(cv2.resize(portrait, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    assert np.abs(centre(large.box) / 3 - centre(small.box)).max() < 8
    assert np.abs(large.landmarks / 3 - small.landmarks).max() < 4


def test_smallest_decides_which_faces_are_found(detector, portrait):
    far = np.full((360, 640, 3), 90, dtype=np.uint8)
    far[100:200, 300:400] = cv2.resize(portrait, (100, 100), interpolation=cv2.INTER_AREA)
    assert [np.abs(centre(face.box) - (350, 150)).max() < 10 for face in detector.detect(far, smallest=30)] == [True]
    assert detector.detect(far, smallest=80) == []


def test_the_largest_face_of_a_huge_picture_is_found_within_bounded_work(detector, portrait):
    huge = cv2.resize(portrait, (4000, 4000), interpolation=cv2.INTER_LINEAR)
    assert huge.shape[0] * huge.shape[1] > 10 * MOST_WORKING_PIXELS
    (face,) = detector.detect(huge, smallest=20)
    assert np.abs(centre(face.box) - 2000).max() < 240


def test_blank_and_noisy_pictures_hold_no_face(detector):
    assert detector.detect(np.zeros((120, 160, 3), dtype=np.uint8)) == []
    assert detector.detect(np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)) == []
    assert detector.detect(np.zeros((1, 1, 3), dtype=np.uint8)) == []


def test_faces_come_with_the_best_score_first(detector, portrait):
    blurred = cv2.GaussianBlur(portrait, (0, 0), 4)
    scores = [face.score for face in detector.detect(np.hstack([blurred, portrait]))]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "picture",
    [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3), np.float32), np.zeros((0, 10, 3), np.uint8)],
)
def test_what_is_no_rgb_picture_is_refused(detector, picture):
    with pytest.raises(ValueError, match="a picture is"):
        detector.detect(picture)


def test_a_smallest_face_of_no_pixels_is_refused(detector):
    with pytest.raises(ValueError, match="at least 1 px"):
        detector.detect(np.zeros((10, 10, 3), np.uint8), smallest=0)


def test_an_unknown_detector_is_refused_naming_the_known_ones():
    with pytest.raises(ValueError, match="dlib_hog, dlib_cnn"):
        load_face_detector("other")


def test_one_detector_serves_several_threads(detector, portrait):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: detector.detect(portrait)[0].landmarks, range(4)))
    for landmarks in answers[1:]:
        np.testing.assert_array_equal(landmarks, answers[0])


def test_the_cnn_detector_agrees_with_the_default_one(detector, portrait):
    (cnn,) = load_face_detector(DETECTORS[1].name).detect(portrait, smallest=80)
    (hog,) = detector.detect(portrait)
    assert np.abs(centre(cnn.box) - centre(hog.box)).max() < 15
    assert np.abs(cnn.landmarks - hog.landmarks).max() < 10


def test_nearly_every_photograph_of_a_public_person_holds_a_face(detector, shared_media):
    with (shared_media / "manifest.csv").open(encoding="utf-8") as stream:
        files = [row["file"] for row in csv.DictReader(stream) if row["file"].startswith("faces/lfw/")]
    found = [detector.detect(np.asarray(Image.open(shared_media / file).convert("RGB"))) for file in files]
    assert sum(bool(faces) for faces in found) >= 0.95 * len(files)
