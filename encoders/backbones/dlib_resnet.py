"""dlib's face network: a 29-layer residual network, 128 components, 99.4 % on Labeled Faces in the Wild."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray

from encoders.backbones.backbone import Unusable, UnusableReason
from encoders.face import LANDMARK_COUNT, FaceCrop

CHIP_SIDE = 150
DIMENSION = 128

# Where dlib's five landmarks of a mean face lie within its box, (x, y) as fractions of the side: the
# numbers of dlib's get_face_chip_details, written out because that function takes whole pixels only.
MEAN_LANDMARKS = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)


@dataclass(frozen=True)
class DlibResnetPreparation:
    """How a crop becomes a chip; part of what determines the vectors.

    Args:
        padding: room around the mean face, as a fraction of its side; the network knows 0.25.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the chip's grey levels, below which it is unusable.
    """

    padding: float = 0.25
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0


class DlibResnet:
    """The network with its preparation. It always runs on the CPU. See :class:`Backbone`.

    Args:
        weights: ``dlib_face_recognition_resnet_model_v1.dat``.
        preparation: fields of :class:`DlibResnetPreparation`.
        device: accepted for the sake of the interface; dlib's build decides where it runs.

    Raises:
        ValueError: an unknown preparation parameter, or weights of another network.
    """

    _BATCH = 32  # chips per call: bounds memory

    def __init__(self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu") -> None:
        unknown = set(preparation) - set(DlibResnetPreparation.__dataclass_fields__)
        if unknown:
            raise ValueError(f"dlib_resnet has no preparation parameter {', '.join(sorted(unknown))}")
        self.preparation = DlibResnetPreparation(**preparation)
        try:
            self._network = dlib.face_recognition_model_v1(str(weights))
        except RuntimeError as error:
            raise ValueError(f"{weights} does not hold weights of dlib's face network: {error}") from error
        self._lock = threading.Lock()  # the network keeps its activations, so it serves one thread at a time

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its (150, 150, 3) uint8 chip, turned upright, or why not."""
        problem = self._problem(sample)
        if problem is not None:
            return problem
        chip = face_chip(sample, self.preparation.padding)
        contrast = float(chip.mean(axis=2).std())
        if contrast < self.preparation.least_contrast:
            return Unusable(UnusableReason.FLAT, f"the crop is blank: its contrast is {contrast:.1f} of 255")
        return chip

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips (150, 150, 3) to (samples, 128) float32 of unit length."""
        vectors = np.zeros((len(prepared), DIMENSION))
        for first in range(0, len(prepared), self._BATCH):
            chips = list(prepared[first : first + self._BATCH])
            with self._lock:
                found = self._network.compute_face_descriptor(chips)
            vectors[first : first + len(chips)] = np.array(found)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit

    def own_weights(self) -> None:
        """None: dlib does not give its parameters away, so the packaged file stays the reference."""

    def _problem(self, sample: FaceCrop) -> Unusable | None:
        pixels, points = sample.pixels, np.asarray(sample.landmarks, dtype=np.float64)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"a crop is (height, width, 3) uint8, got {pixels.shape} {pixels.dtype}")
        if points.shape != (LANDMARK_COUNT, 2):
            raise ValueError(f"landmarks are ({LANDMARK_COUNT}, 2) x, y, got {points.shape}")
        if pixels.size == 0:
            return Unusable(UnusableReason.NO_FACE, "the crop is empty")
        if not np.isfinite(points).all():
            return Unusable(UnusableReason.NOT_FINITE, "the landmarks are not finite numbers")
        x, y = points.mean(axis=0)
        if not (0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]):
            return Unusable(UnusableReason.NO_FACE, f"the face's centre ({x:.0f}, {y:.0f}) lies outside the crop")
        distance = float(np.linalg.norm(points[:2].mean(axis=0) - points[2:4].mean(axis=0)))
        least = self.preparation.least_eye_distance
        if distance < least:
            detail = f"the eyes are {distance:.1f} px apart, at least {least:.0f} px are needed"
            return Unusable(UnusableReason.TOO_SMALL, detail)
        return None


def face_chip(crop: FaceCrop, padding: float, side: int = CHIP_SIDE) -> NDArray[np.uint8]:
    """Turn a face upright, at one size, as dlib's ``get_face_chip`` does, but by fractional points.

    Args:
        crop: the face; pixels outside it become black.
        padding: room around the mean face, as a fraction of its side.
        side: pixels of the chip.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    targets = (MEAN_LANDMARKS + padding) / (1.0 + 2.0 * padding) * side
    chip_points, crop_points = dlib.dpoints(), dlib.dpoints()
    for target, point in zip(targets, np.asarray(crop.landmarks, dtype=np.float64), strict=True):
        chip_points.append(dlib.dpoint(*target))
        crop_points.append(dlib.dpoint(*point))
    details = dlib.chip_details(chip_points, crop_points, dlib.chip_dims(side, side))
    chip: NDArray[np.uint8] = dlib.extract_image_chip(np.ascontiguousarray(crop.pixels), details)
    return chip
