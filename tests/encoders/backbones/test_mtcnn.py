from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from encoders import face
from encoders.backbones.mtcnn import (
    Mtcnn,
    MtcnnPreparation,
    OutputNetwork,
    ProposalNetwork,
    RefineNetwork,
    suppress,
)
from encoders.face import load_face_detector
from encoders.packaging import drawn_face
from encoders.weights import find_row, packaged_path
from tests.encoders.seeded import seed_network

# All numbers of this file called REFERENCE are those of facenet-pytorch 2.6.0's own classes.
REFERENCE = {
    "boxes": [
        [629.44543, 11.46853, 693.06146, 96.40746],
        [147.3634, 8.13644, 215.24266, 101.33515],
        [509.93103, 11.14024, 573.60516, 101.26067],
    ],
    "scores": [0.973409, 0.973028, 0.900966],
    "points": [[644.78650, 44.06978], [675.53833, 43.24675], [661.82605, 64.30305], [652.27612, 80.19345],
               [670.81580, 79.81696]],
}  # fmt: skip
SEEDED_REFERENCE = [
    (ProposalNetwork, 20, [0.998106, 0.99547, 0.999698, 0.994647], [2.747476, 3.362614, 4.736524, 3.90186]),
    (RefineNetwork, 24, [0.3676, 0.330977], [-1.437158, 4.755672, 1.965362, -2.182689]),
    (OutputNetwork, 48, [0.01028, 0.000657], [10.610739, 3.964168, 7.67018, 2.971144]),
]


@pytest.fixture(scope="module")
def weights():
    return tuple(packaged_path(file) for file in find_row(face.DETECTORS, "mtcnn").files[:3])


@pytest.fixture(scope="module")
def cascade(weights):
    return Mtcnn(weights)


@pytest.fixture(scope="module")
def scene():
    """(120, 720, 3): six drawn faces side by side, of which three look like faces to MTCNN."""
    return np.hstack([drawn_face(seed, 120).pixels for seed in range(6)])


@pytest.fixture(scope="module")
def portrait(shared_media):
    path = sorted((shared_media / "faces" / "lfw" / "Colin_Powell").iterdir())[0]
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(("kind", "side", "probabilities", "moves"), SEEDED_REFERENCE)
def test_each_network_gives_the_numbers_of_the_public_class(kind, side, probabilities, moves):
    network = kind().eval()
    seed_network(network, 3)
    inputs = np.random.default_rng(5).uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        answers = network(torch.from_numpy(inputs))
    np.testing.assert_allclose(answers[0].flatten()[: len(probabilities)], probabilities, atol=2e-5)
    np.testing.assert_allclose(answers[1].flatten()[:4], moves, rtol=1e-4)


def test_the_cascade_finds_what_the_public_one_finds(cascade, scene):
    found = cascade.find(scene, 20)
    np.testing.assert_allclose(found.boxes, REFERENCE["boxes"], atol=1e-2)
    np.testing.assert_allclose(found.scores, REFERENCE["scores"], atol=1e-4)
    np.testing.assert_allclose(found.points[0], REFERENCE["points"], atol=1e-2)


def test_the_face_of_a_portrait_is_found_with_its_points(cascade, portrait):
    found = cascade.find(portrait, 40)
    left, top, right, bottom = found.boxes[0]
    assert found.scores[0] > 0.99 and abs(left + right - 250) < 30 and abs(top + bottom - 250) < 40
    (first, second, nose, *mouth) = found.points[0]
    assert first[0] < nose[0] < second[0] and first[1] < nose[1] < mouth[0][1]


def test_a_box_inside_another_is_not_a_second_face(cascade, shared_media):
    """One of two boxes that the last network passes lies in the other; by union they would both stay."""
    path = shared_media / "faces" / "faceapi" / "bernadette" / "bernadette2.png"
    found = cascade.find(np.asarray(Image.open(path).convert("RGB")))
    np.testing.assert_allclose(found.boxes, [[-37.3404, -62.8534, 129.1603, 150.0987]], atol=0.05)


@pytest.mark.parametrize("angle", [0, 40])
def test_the_detector_finds_turned_faces_where_the_default_one_does(portrait, angle):
    turn = cv2.getRotationMatrix2D((125, 125), angle, 1.0)
    turned = cv2.warpAffine(portrait, turn, (250, 250), borderMode=cv2.BORDER_REPLICATE)
    best = load_face_detector("mtcnn").detect(turned)[0]
    (upright,) = load_face_detector().detect(portrait)
    moved = cv2.transform(upright.landmarks[None], turn)[0]
    assert np.abs(best.landmarks[[0, 2]] - moved[[0, 2]]).max() < 12  # the outer corners of the eyes
    if not angle:
        assert np.abs(best.landmarks - upright.landmarks).max() < 5
        assert np.abs(np.array(best.box) - upright.box).max() < 20


def test_smallest_decides_which_faces_are_found(scene):
    detector = load_face_detector("mtcnn")
    assert len(detector.detect(scene, smallest=30)) == 3
    assert detector.detect(scene, smallest=118) == []


def test_pictures_without_faces_or_too_small_for_one_have_none(cascade):
    for picture in (np.zeros((120, 160, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), np.zeros((11, 300, 3), np.uint8)):
        assert cascade.find(picture).boxes.shape == (0, 4)
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert load_face_detector("mtcnn").detect(noise) == []


def test_windows_at_the_edge_of_the_picture_are_cut_off_there(cascade, scene):
    cut = np.ascontiguousarray(scene[:, 160:])  # through the face that begins at 147
    assert len(cascade.find(cut).boxes) >= 2


def test_the_same_picture_gives_the_same_faces_to_every_thread(cascade, scene):
    expected = cascade.find(scene).boxes
    with ThreadPoolExecutor(3) as pool:
        for answer in pool.map(lambda _: cascade.find(scene).boxes, range(3)):
            np.testing.assert_array_equal(answer, expected)


def test_a_box_over_a_better_one_is_suppressed():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50], [42, 42, 46, 46]])
    scores = torch.tensor([0.8, 0.9, 0.7, 0.95])
    assert suppress(boxes, scores, 0.7).tolist() == [3, 1, 2]
    assert suppress(boxes, scores, 0.7, of_smaller=True).tolist() == [3, 1]
    assert suppress(boxes, scores, 0.9).tolist() == [3, 1, 0, 2]
    assert suppress(boxes[:0], scores[:0], 0.7).tolist() == []


@pytest.mark.parametrize("values", [{"thresholds": (0.6, 0.7)}, {"thresholds": (0.6, 0.7, 1.5)}, {"shrink": 1.0}])
def test_impossible_preparation_is_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        MtcnnPreparation(**values)


def test_windows_that_p_net_cannot_see_and_foreign_weights_are_refused(cascade, weights, scene):
    with pytest.raises(ValueError, match="12 px, got 8"):
        cascade.find(scene, 8)
    with pytest.raises(ValueError, match="does not hold the weights of ProposalNetwork"):
        Mtcnn((weights[1], weights[0], weights[2]))


@pytest.mark.long
def test_nearly_every_photograph_of_a_public_person_holds_a_face(shared_media):
    detector = load_face_detector("mtcnn")
    files = sorted((shared_media / "faces" / "lfw").glob("*/*"))
    found = [detector.detect(np.asarray(Image.open(file).convert("RGB"))) for file in files]
    assert sum(bool(faces) for faces in found) >= 0.98 * len(files)


@pytest.mark.cuda
def test_a_cuda_device_finds_the_same_faces(weights, cascade, scene):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    found, expected = Mtcnn(weights, "cuda").find(scene), cascade.find(scene)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-2)
