"""What is found in a medium: spans of time, face tracks, speech turns.

Standard library and NumPy only. Time is seconds on the medium's own clock, which starts at 0.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

import numpy as np
from numpy.typing import NDArray

MediaId = NewType("MediaId", str)
"""SHA-256 of a file's content, 64 hex digits: two files of one content are one medium."""


def media_id(path: Path) -> MediaId:
    """Hash a file's content. Raises OSError as the file system gives it, and for what is no regular file."""
    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))  # opening a pipe would wait for ever
    with path.open("rb") as stream:
        return MediaId(hashlib.file_digest(stream, "sha256").hexdigest())


@dataclass(frozen=True, order=True)
class Span:
    """A half-open stretch of time, [start, end), in seconds on the media clock."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, got [{self.start}, {self.end})")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def overlap(self, other: Span) -> float:
        """Seconds shared with another span, 0 when they do not touch."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))

    def milliseconds(self) -> tuple[int, int]:
        """Start and end rounded to whole milliseconds: the form that keys and rows use."""
        return round(self.start * 1000), round(self.end * 1000)


@dataclass(frozen=True, eq=False)
class FaceShot:
    """One good look at a face.

    Args:
        time: seconds on the media clock; None for a photo.
        pixels: (height, width, 3) uint8 RGB: the face box enlarged to twice its size (at least 256
            px where the picture has them), at most 512 px a side.
        landmarks: (5, 2) float32 x, y in pixels of ``pixels``, in the landmark model's own order.
        box: (left, top, right, bottom) of the face in the whole picture, pixels.
        quality: 0 (useless) to 1 (large, sharp, frontal).
    """

    time: float | None
    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box: tuple[float, float, float, float]
    quality: float


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face followed through a film, or one face of a photo.

    Args:
        index: number within the medium, in order of first appearance (photos: largest first).
        span: first to last sight; None for a photo.
        shots: best looks, best first; at least one.
        area: mean area of the face box in pixels, to tell the largest face.
        seen: spans in which the face is actually visible (empty for a photo).
    """

    index: int
    span: Span | None
    shots: tuple[FaceShot, ...]
    area: float
    seen: tuple[Span, ...] = ()


@dataclass(frozen=True, eq=False)
class SpeechTurn:
    """One stretch of speech by one speaker.

    Args:
        span: where it lies.
        speaker: number of the speaker within this medium, by first turn.
        waveform: (samples,) float32 mono at 16 kHz, within [-1, 1].
        overlaps: parts of the span during which another speaker speaks too, in order of time.
    """

    span: Span
    speaker: int
    waveform: NDArray[np.float32]
    overlaps: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Speaking:
    """Which of the visible faces speaks during one turn, judged from mouths and sound.

    Args:
        track: place in :attr:`Extraction.faces` of the face that most likely speaks; None: no face is
            visible during the turn.
        probability: 0 to 1, that this face is the one that speaks.
        off_screen: 0 to 1, that the speaker is not visible; 1 when no face is.
    """

    track: int | None
    probability: float
    off_screen: float

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and 0 <= self.off_screen <= 1):
            raise ValueError(f"probabilities lie within 0 to 1, got {self.probability} and {self.off_screen}")
        if self.track is not None and self.track < 0:
            raise ValueError(f"a track is a place in the list of faces, got {self.track}")


@dataclass(frozen=True, eq=False)
class Extraction:
    """Everything found in one medium.

    Args:
        media: content hash.
        kind: ``film``, ``sound`` or ``photo``.
        duration: seconds of media; 0 for a photo.
        faces: face tracks.
        turns: speech turns in order of time.
        warnings: what was odd but did not stop the work (truncated file, ...), for people to read.
        speaking: who speaks, one per turn in their order; empty where it was not judged (photos, sound).

    Raises:
        ValueError: it was judged for some turns only, or names a face that is not there.
    """

    media: MediaId
    kind: str
    duration: float
    faces: tuple[FaceTrack, ...] = ()
    turns: tuple[SpeechTurn, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    speaking: tuple[Speaking, ...] = ()

    def __post_init__(self) -> None:
        if self.speaking and len(self.speaking) != len(self.turns):
            raise ValueError(f"{len(self.speaking)} of {len(self.turns)} turns are judged: judge all or none")
        if any(one.track is not None and one.track >= len(self.faces) for one in self.speaking):
            raise ValueError(f"who speaks names a face beyond the {len(self.faces)} that were found")
