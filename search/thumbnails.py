"""Small pictures of the faces that a protocol's lists name, for its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from encoders.space import Modality
from ingest.content import MediaError, read_photo
from search.protocol_media import find_files
from search.trial_lists import TrialLists

SIDE = 96
"""Longest side, pixels."""


def thumbnails(lists: TrialLists, media: Path) -> Callable[[str], bytes | None]:
    """What gives a small JPEG of a face by its path in the lists; None of a voice, or what cannot be read.

    Args:
        lists: of the protocol.
        media: the folder of the files that they name.

    Raises:
        ProtocolError: there is no such folder.
    """
    faces = find_files(lists, media, allow_missing=True)[Modality.FACE]

    def seen(path: str) -> bytes | None:
        place = faces.get(path)
        return None if place is None else _small(place)

    return seen


def _small(path: Path) -> bytes | None:
    try:
        picture = read_photo(path, [])
    except MediaError:
        return None
    share = SIDE / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    written, packed = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))
    return bytes(packed) if written else None
