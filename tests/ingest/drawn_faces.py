"""Faces drawn for tests: eyes, a nose and a mouth that opens, where the landmarks say."""

from __future__ import annotations

import cv2
import numpy as np

from encoders.chips import MEAN_LANDMARKS
from encoders.face import DetectedFace


def landmarks_at(left, top, side):
    """(5, 2) float32 of a drawn face whose box begins at (left, top)."""
    return (MEAN_LANDMARKS * side + (left, top)).astype(np.float32)


def draw_face(picture, left, top, side, opening=0.0):
    """Draw a face into an RGB or grey picture, in place; ``opening`` 0 to 1 is how far its mouth is open."""

    def at(x, y):
        return round(left + x * side), round(top + y * side)

    tones = {2: (205, 70, 30, 170, 110)}.get(picture.ndim, ((205,) * 3, (70,) * 3, (30,) * 3, (170,) * 3, (110,) * 3))
    skin, dark, black, nose, cheek = tones
    cv2.ellipse(picture, at(0.5, 0.55), (round(0.55 * side), round(0.7 * side)), 0, 0, 360, skin, -1)
    for x in (0.23, 0.75):
        cv2.ellipse(picture, at(x, 0.22), (round(0.1 * side), round(0.05 * side)), 0, 0, 360, dark, -1)
        cv2.circle(picture, at(x, 0.55), max(1, round(0.03 * side)), cheek, -1)
    cv2.ellipse(picture, at(0.49, 0.55), (round(0.06 * side), round(0.1 * side)), 0, 0, 360, nose, -1)
    height = max(1, round((0.015 + 0.09 * opening) * side))
    cv2.ellipse(picture, at(0.49, 0.84), (round(0.16 * side), height), 0, 0, 360, black, -1)


class FixedFaces:
    """A detector that finds drawn faces where they were drawn.

    Args:
        places: (left, top, side) of each face.
    """

    def __init__(self, *places):
        self.places = places
        self.looked = 0

    def detect(self, picture, *, smallest=30):
        self.looked += 1
        return [
            DetectedFace((left, top, left + side, top + side), 2.0, landmarks_at(left, top, side))
            for left, top, side in self.places
        ]
