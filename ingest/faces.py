"""Faces of a film followed through time and across cuts; faces of a photo."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.face import DetectedFace, FaceDetector
from ingest.cells import SMALLEST_FACE, follow_cells, moved
from ingest.joining import Joining
from ingest.mouths import MouthMotion, Passing
from ingest.shots import area, face_quality, take_shot
from ingest.sightings import DescribeFaces, FaceSettings
from ingest.track import FaceTrack

__all__ = ["DescribeFaces", "FaceSettings", "find_face_tracks", "find_photo_faces", "follow_faces"]


def find_photo_faces(
    picture: NDArray[np.uint8], detector: FaceDetector, shares: tuple[int, ...] = (8, 14)
) -> tuple[FaceTrack, ...]:
    """The faces of a photo, largest first; looks closer and closer until it finds one.

    Args:
        picture: (height, width, 3) uint8 RGB.
        detector: finds faces.
        shares: it looks for faces of at least this part of the shorter side, one after the other until it finds any.
    """
    side = min(picture.shape[:2])
    faces: list[DetectedFace] = []
    for share in shares:
        faces = faces or detector.detect(picture, smallest=max(SMALLEST_FACE, side // share))
    if not faces:
        # A face that fills the photo lacks the surroundings that detectors expect.
        margin = max(1, side // 4)
        framed = cv2.copyMakeBorder(picture, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        found = detector.detect(framed.astype(np.uint8, copy=False), smallest=max(SMALLEST_FACE, side // 4))
        faces = [moved(face, -margin, -margin) for face in found]
    faces = sorted(faces, key=lambda face: (-area(face.box), face.box))
    shots = [take_shot(picture, face, None, face_quality(picture, face)) for face in faces]
    return tuple(FaceTrack(index, None, (shot,), area(shot.box)) for index, shot in enumerate(shots))


def find_face_tracks(
    pictures: Iterable[tuple[float, NDArray[np.uint8]]],
    detector: FaceDetector,
    describe: DescribeFaces | None = None,
    settings: FaceSettings | None = None,
    until: float = np.inf,
) -> tuple[FaceTrack, ...]:
    """Follow the faces of a film: see :func:`follow_faces`, whose tracks it gives."""
    return follow_faces(pictures, detector, describe, settings, until)[0]


def follow_faces(
    pictures: Iterable[tuple[float, NDArray[np.uint8]]],
    detector: FaceDetector,
    describe: DescribeFaces | None = None,
    settings: FaceSettings | None = None,
    until: float = np.inf,
    passing: Passing | None = None,
) -> tuple[tuple[FaceTrack, ...], tuple[MouthMotion, ...]]:
    """Follow the faces of a film and watch their mouths.

    Args:
        pictures: seconds, rising, and (height, width, 3) uint8 RGB, about ``settings.fps`` a second.
        detector: finds faces.
        describe: gives their vectors; without it no face is followed across a cut.
        settings: default :class:`FaceSettings`.
        until: end of the film in seconds, which no span passes.
        passing: holds the pictures that went by since the one before, this one included; None: mouths are not
            watched, and their motion is empty.

    Returns:
        One track per face in order of first appearance, and the motion of its mouth.
    """
    settings = settings or FaceSettings()
    joining = Joining(settings, describe)
    for cell in follow_cells(pictures, detector, describe, settings, passing):
        joining.add(cell)
    return joining.tracks(until)
