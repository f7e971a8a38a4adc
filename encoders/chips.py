"""From a face crop to a chip: the face upright, in the middle, at one size; or why there is none."""

from __future__ import annotations

from typing import cast

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from encoders.backbones.backbone import Unusable, UnusableReason
from encoders.face import LANDMARK_COUNT, FaceCrop

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

Window = tuple[float, float, float, float]
"""(left, top, right, bottom) in sides of the box of dlib's mean face, whose own corners are 0 and 1."""


def face_chip(crop: FaceCrop, padding: float, side: int) -> NDArray[np.uint8]:
    """Turn a face upright, at one size, as dlib's ``get_face_chip`` does, but by fractional points.

    Args:
        crop: the face; pixels outside it become black.
        padding: room around the mean face, as a fraction of its side.
        side: pixels of the chip.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    return _upright(crop, (MEAN_LANDMARKS + padding) / (1.0 + 2.0 * padding) * side, side, side)


def stretched_chip(crop: FaceCrop, window: Window, side: int) -> NDArray[np.uint8]:
    """Turn a face upright and bring a rectangle of it to a square, as detectors' boxes are cut out for networks.

    Args:
        crop: the face; pixels outside it become black.
        window: what is shown.
        side: pixels of the chip.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    left, top, right, bottom = window
    rows = max(1, round(side * (bottom - top) / (right - left)))
    upright = _upright(crop, (MEAN_LANDMARKS - (left, top)) / (right - left) * side, rows, side)
    return cast("NDArray[np.uint8]", cv2.resize(upright, (side, side), interpolation=cv2.INTER_AREA))


def _upright(crop: FaceCrop, targets: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: the crop turned, scaled and moved so that its landmarks come to lie at the targets."""
    chip_points, crop_points = dlib.dpoints(), dlib.dpoints()
    for target, point in zip(targets, np.asarray(crop.landmarks, dtype=np.float64), strict=True):
        chip_points.append(dlib.dpoint(*target))
        crop_points.append(dlib.dpoint(*point))
    details = dlib.chip_details(chip_points, crop_points, dlib.chip_dims(rows, columns))
    chip: NDArray[np.uint8] = dlib.extract_image_chip(np.ascontiguousarray(crop.pixels), details)
    return chip


def usable_chip(
    crop: FaceCrop, padding: float, side: int, least_eye_distance: float, least_contrast: float
) -> NDArray[np.uint8] | Unusable:
    """The chip of a crop that shows a face well enough, or why it does not.

    Args:
        crop: the face.
        padding: room around the mean face, as a fraction of its side.
        side: pixels of the chip.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.

    Returns:
        (side, side, 3) uint8 RGB, or :class:`Unusable`.

    Raises:
        ValueError: pixels or landmarks have the wrong shape or type.
    """
    problem = _crop_problem(crop, least_eye_distance)
    if problem is not None:
        return problem
    chip = face_chip(crop, padding, side)
    # Within the mean face only: black from outside the crop would pass for contrast.
    edge = round(padding / (1.0 + 2.0 * padding) * side)
    return _flatness(chip[edge : side - edge, edge : side - edge], least_contrast) or chip


def usable_window(
    crop: FaceCrop, window: Window, side: int, least_eye_distance: float, least_contrast: float
) -> NDArray[np.uint8] | Unusable:
    """Like :func:`usable_chip`, with the chip of :func:`stretched_chip`."""
    problem = _crop_problem(crop, least_eye_distance)
    if problem is not None:
        return problem
    chip = stretched_chip(crop, window, side)
    left, top, right, bottom = window
    columns = [round(side * min(max((edge - left) / (right - left), 0.0), 1.0)) for edge in (0.0, 1.0)]
    rows = [round(side * min(max((edge - top) / (bottom - top), 0.0), 1.0)) for edge in (0.0, 1.0)]
    return _flatness(chip[slice(*rows), slice(*columns)], least_contrast) or chip


def _flatness(face: NDArray[np.uint8], least_contrast: float) -> Unusable | None:
    """Why pixels of a face tell nothing; None where they do."""
    contrast = float(face.mean(axis=2).std())
    if contrast < least_contrast:
        return Unusable(UnusableReason.FLAT, f"the crop is blank: its contrast is {contrast:.1f} of 255")
    return None


def _crop_problem(crop: FaceCrop, least_eye_distance: float) -> Unusable | None:
    pixels, points = crop.pixels, np.asarray(crop.landmarks, dtype=np.float64)
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
    if distance < least_eye_distance:
        detail = f"the eyes are {distance:.1f} px apart, at least {least_eye_distance:.0f} px are needed"
        return Unusable(UnusableReason.TOO_SMALL, detail)
    return None
