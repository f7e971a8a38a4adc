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

from encoders.backbones.backbone import Unusable, read_preparation
from encoders.chips import usable_chip
from encoders.face import FaceCrop

CHIP_SIDE = 150
DIMENSION = 128


@dataclass(frozen=True)
class DlibResnetPreparation:
    """How a crop becomes a chip; part of what determines the vectors.

    Args:
        padding: room around the mean face, as a fraction of its side; the network knows 0.25.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
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
        self.preparation = read_preparation("dlib_resnet", DlibResnetPreparation, preparation)
        try:
            self._network = dlib.face_recognition_model_v1(str(weights))
        except RuntimeError as error:
            raise ValueError(f"{weights} does not hold weights of dlib's face network: {error}") from error
        self._lock = threading.Lock()  # the network keeps its activations, so it serves one thread at a time

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its (150, 150, 3) uint8 chip, turned upright, or why not."""
        wanted = self.preparation
        return usable_chip(sample, wanted.padding, CHIP_SIDE, wanted.least_eye_distance, wanted.least_contrast)

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
