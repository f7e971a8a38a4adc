"""Faces: the crop that encoders take, the tables of detectors and face networks, and the detectors.

Landmarks are always dlib's five points: the two corners of the eye on the picture's right (outer,
inner), of the eye on the picture's left (outer, inner), and the base of the nose.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from encoders.weights import NetworkRow, PackagedFile, UrlFile, find_row, packaged_path

LANDMARK_COUNT = 5


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face as an encoder takes it: the pixels around it, not yet aligned.

    Args:
        pixels: (height, width, 3) uint8 RGB; about twice the face box, so that turning it upright
            does not reach outside.
        landmarks: (5, 2) float32 x, y in pixels of ``pixels``, in dlib's five-point order.
    """

    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face found in a picture.

    Args:
        box: (left, top, right, bottom) in pixels of the picture; may leave the picture.
        score: the detector's own confidence, comparable only within one detector; above 0.
        landmarks: (5, 2) float32 x, y in pixels of the picture, in dlib's five-point order.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]


class FaceDetector(Protocol):
    """Finds faces in one picture."""

    def detect(self, picture: NDArray[np.uint8], *, smallest: int = 30) -> list[DetectedFace]:
        """Find faces, best score first.

        Args:
            picture: (height, width, 3) uint8 RGB.
            smallest: side in pixels of the smallest face to look for; smaller costs more time.
        """
        ...


_FACE_MODELS = ("face_recognition_models", "face_recognition_models", "0.3.0")

FIVE_LANDMARKS = PackagedFile(
    *_FACE_MODELS,
    file="models/shape_predictor_5_face_landmarks.dat",
    sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    licence="CC0-1.0",
)
_CNN_DETECTOR = PackagedFile(
    *_FACE_MODELS,
    file="models/mmod_human_face_detector.dat",
    sha256="4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    licence="CC0-1.0",
)
_FACE_RESNET = PackagedFile(
    *_FACE_MODELS,
    file="models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    licence="CC0-1.0",
)

_FACENET = ("facenet_pytorch", "facenet-pytorch", "2.6.0")
_MTCNN = tuple(
    PackagedFile(*_FACENET, file=f"data/{name}.pt", sha256=sha256, licence="MIT")
    for name, sha256 in (
        ("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
        ("rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
        ("onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
    )
)

DETECTORS = (
    NetworkRow(
        name="dlib_hog",
        network="dlib_hog",
        files=(FIVE_LANDMARKS,),
        dimension=0,
        trained_on="about 3,000 faces of Labeled Faces in the Wild (detector, compiled into dlib); 7,198 "
        "faces labelled by dlib's author (landmarks)",
        input_contract="uint8 RGB picture of any size; faces upright within about 30 degrees, not in profile",
    ),
    NetworkRow(
        name="dlib_cnn",
        network="dlib_cnn",
        files=(_CNN_DETECTOR, FIVE_LANDMARKS),
        dimension=0,
        trained_on="faces of ImageNet, AFLW, Pascal VOC, VGGFace, WIDER FACE and FaceScrub, labelled by "
        "dlib's author; landmarks as for dlib_hog",
        input_contract="uint8 RGB picture of any size; faces at most angles; many times slower without CUDA",
    ),
    NetworkRow(
        name="mtcnn",
        network="mtcnn",
        files=(*_MTCNN, FIVE_LANDMARKS),
        dimension=0,
        trained_on="faces of WIDER FACE and, for its own points, of CelebA (Zhang et al. 2016); landmarks as for "
        "dlib_hog",
        input_contract="uint8 RGB picture of any size; faces from 20 px, within about 45 degrees; runs on a GPU",
    ),
)

_FACENET_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
_FACENET_INPUT = (
    "160 x 160 px RGB chip, turned upright by five landmarks: the box in which MTCNN finds a face with a margin of 14 "
    "px, stretched to a square; (x - 127.5) / 128"
)

BACKBONES = (
    NetworkRow(
        name="dlib_resnet_v1",
        network="dlib_resnet",
        files=(_FACE_RESNET,),
        dimension=128,
        trained_on="about 3 million photographs of 7,485 people: FaceScrub, VGGFace, pictures from the web",
        input_contract="150 x 150 px RGB chip, turned upright by five landmarks, padding 0.25",
    ),
    NetworkRow(
        name="inception_resnet_v1_vggface2",
        network="inception_resnet_v1",
        files=(),
        dimension=512,
        trained_on="the 8,631 people of the training part of VGGFace2 (pictures from the web); people of Labeled Faces "
        "in the Wild are among them, and VoxCeleb2's were chosen from them",
        input_contract=_FACENET_INPUT,
        sources=(UrlFile(f"{_FACENET_RELEASE}/20180402-114759-vggface2.pt", licence="MIT"),),
    ),
    NetworkRow(
        name="inception_resnet_v1_casia_webface",
        network="inception_resnet_v1",
        files=(),
        dimension=512,
        trained_on="the 10,575 people of CASIA-WebFace (pictures of film people from the web)",
        input_contract=_FACENET_INPUT,
        sources=(UrlFile(f"{_FACENET_RELEASE}/20180408-102900-casia-webface.pt", licence="MIT"),),
    ),
    NetworkRow(
        name="inception_resnet_v1",
        network="inception_resnet_v1",
        files=(),
        dimension=512,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract=_FACENET_INPUT,
    ),
    NetworkRow(
        name="small_face",
        network="small_face",
        files=(),
        dimension=128,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="64 x 64 px RGB chip, turned upright by five landmarks, padding 0.5",
    ),
    NetworkRow(
        name="small_picture",
        network="small_picture",
        files=(),
        dimension=128,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="64 x 64 px RGB chip, turned upright by five landmarks, padding 0.3",
    ),
    NetworkRow(
        name="resnet34_face",
        network="resnet34_face",
        files=(),
        dimension=256,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="224 x 224 px RGB chip, turned upright by five landmarks, padding 0.3",
    ),
    NetworkRow(
        name="vit_face",
        network="vit_face",
        files=(),
        dimension=192,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="112 x 112 px RGB chip, turned upright by five landmarks, padding 0.3",
    ),
)

# The pixels that a detector looks at are bounded, or one huge photograph would cost minutes.
MOST_WORKING_PIXELS = 1_200_000


class _Landmarks:
    """dlib's five-point shape predictor, on the picture as it is.

    Its points are whole pixels. Enlarging small faces to place them finer was measured and changed nothing:
    mAP 0.993 against 0.993 at faces of 40 px, 0.994 against 0.994 at 60 px.
    """

    def __init__(self) -> None:
        self._predictor = dlib.shape_predictor(str(packaged_path(FIVE_LANDMARKS)))

    def locate(self, picture: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.float32]:
        """(5, 2) float32 x, y in pixels of the contiguous picture for the face in ``box``."""
        left, top, right, bottom = box
        rectangle = dlib.rectangle(round(left), round(top), round(right) - 1, round(bottom) - 1)
        shape = self._predictor(picture, rectangle)
        return np.array([(part.x, part.y) for part in shape.parts()], dtype=np.float32)


_Found = tuple[float, float, float, float, float]


class _ScaledDetector(ABC):
    """What dlib's detectors share: bring the smallest face to the size they find, map the boxes back.

    A lock guards the dlib objects, which keep working memory and so serve one thread at a time.
    """

    native_face = 80  # side in pixels of the smallest face found without enlarging
    most_enlarging = float("inf")

    def __init__(self) -> None:
        self._landmarks = _Landmarks()
        self._lock = threading.Lock()

    @abstractmethod
    def _find(self, picture: NDArray[np.uint8], smallest: float) -> list[_Found]:
        """(left, top, right, bottom, score) per face, in pixels of this picture, as is the smallest face's side."""

    def detect(self, picture: NDArray[np.uint8], *, smallest: int = 30) -> list[DetectedFace]:
        """See :class:`FaceDetector`. Raises ValueError unless the picture is (h, w, 3) uint8."""
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            raise ValueError(f"a picture is (height, width, 3) uint8, got {picture.shape} {picture.dtype}")
        if smallest < 1:
            raise ValueError(f"the smallest face must have at least 1 px, got {smallest}")
        height, width = picture.shape[:2]
        bound = float(np.sqrt(MOST_WORKING_PIXELS / (height * width)))
        scale = min(self.native_face / smallest, bound, self.most_enlarging)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        way = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        working = cv2.resize(picture, size, interpolation=way) if scale != 1.0 else picture
        across, down = width / size[0], height / size[1]
        faces, whole = [], np.ascontiguousarray(picture)
        with self._lock:
            contiguous = np.ascontiguousarray(working, dtype=np.uint8)
            for left, top, right, bottom, score in self._find(contiguous, smallest * scale):
                box = (left * across, top * down, right * across, bottom * down)
                faces.append(DetectedFace(box, score, self._landmarks.locate(whole, box)))
        return sorted(faces, key=lambda face: -face.score)


class _HogDetector(_ScaledDetector):
    """Histogram of oriented gradients: fast on a CPU, nearly no false alarms."""

    native_face = 80

    def __init__(self) -> None:
        super().__init__()
        self._detector = dlib.get_frontal_face_detector()

    def _find(self, picture: NDArray[np.uint8], smallest: float) -> list[_Found]:
        boxes, scores, _ = self._detector.run(picture, 0, 0.0)
        # dlib's right and bottom are the last pixel inside; ours the first outside.
        return [
            (box.left(), box.top(), box.right() + 1, box.bottom() + 1, float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]


class _CnnDetector(_ScaledDetector):
    """A small convolutional network: more angles, far more work."""

    native_face = 80

    def __init__(self) -> None:
        super().__init__()
        self._detector = dlib.cnn_face_detection_model_v1(str(packaged_path(_CNN_DETECTOR)))

    def _find(self, picture: NDArray[np.uint8], smallest: float) -> list[_Found]:
        found = self._detector(picture, 0)
        return [
            (
                one.rect.left(),
                one.rect.top(),
                one.rect.right() + 1,
                one.rect.bottom() + 1,
                float(one.confidence),
            )
            for one in found
        ]


class _MtcnnDetector(_ScaledDetector):
    """Three small networks in torch: small and turned faces too, on a GPU where there is one.

    Its boxes go from the hair to the chin. They are brought to the squares from brows to chin that dlib's detectors
    give, so that landmarks are found as well and crops of all detectors are alike.

    Args:
        device: a torch device.
    """

    native_face = 48  # pixels that its last network looks at
    most_enlarging = 1.0  # it looks for small faces itself
    # the median of 82 photographed faces that both detectors found
    _SIDE, _LOWER = 0.926, 0.054

    def __init__(self, device: str) -> None:
        super().__init__()
        # torch takes a second to load: only who asks for this detector waits for it
        from encoders.backbones.mtcnn import PROPOSAL_SIDE, Mtcnn

        first, second, third = (packaged_path(file) for file in _MTCNN)
        self._least, self._network = float(PROPOSAL_SIDE), Mtcnn((first, second, third), device)

    def _find(self, picture: NDArray[np.uint8], smallest: float) -> list[_Found]:
        found = self._network.find(picture, max(smallest, self._least))
        faces = []
        for (left, top, right, bottom), score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
            width, height = right - left, bottom - top
            half = self._SIDE * float(np.sqrt(width * height)) / 2
            x, y = (left + right) / 2, (top + bottom) / 2 + self._LOWER * height
            faces.append((x - half, y - half, x + half, y + half, score))
        return faces


_DETECTOR_CLASSES: dict[str, Callable[[str], FaceDetector]] = {
    "dlib_hog": lambda device: _HogDetector(),
    "dlib_cnn": lambda device: _CnnDetector(),
    "mtcnn": _MtcnnDetector,
}


def load_face_detector(name: str = "dlib_hog", device: str = "cpu") -> FaceDetector:
    """Load a detector of the table :data:`DETECTORS`; safe to use from several threads.

    Args:
        name: of a row.
        device: where those run that are written in torch; dlib's run where dlib was built to.

    Raises:
        ValueError: there is no such detector.
        WeightsError: its weights are missing or not the expected ones.
    """
    row = find_row(DETECTORS, name)
    return _DETECTOR_CLASSES[row.network](device)
