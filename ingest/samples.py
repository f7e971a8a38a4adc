"""One file is one sample: the face of a photo, the sound of an utterance.

Protocols and corpora name files that show one person each. Reading them needs no tracks and no turns; what
comes out has the form in which the archive keeps a face or a turn as evidence.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.face import FaceCrop, FaceDetector
from ingest.faces import find_photo_faces
from ingest.limits import in_force
from ingest.media import MediaError, read_audio, read_photo
from ingest.track import Span

# What picture and sound libraries raise on content that nobody foresaw: one file never stops a batch.
_PROCESSING = (RuntimeError, ValueError, AttributeError, MemoryError, cv2.error)
# A photo of one person is looked at for a large face first, which takes a third of the time.
_SHARES = (3, 8, 14)
_STEPS = 32768.0  # steps of 16-bit sound in a full scale of 1


class NoSample(ValueError):
    """A file that can be read, but holds no face or no sound.

    Args:
        path: the file.
        reason: what is missing, a sentence for people.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_face(path: Path, detector: FaceDetector) -> FaceCrop:
    """The largest face of a photo, as the evidence keeps it: landmarks to a hundredth of a pixel.

    Args:
        path: a photo; its content decides, not its extension.
        detector: finds faces.

    Returns:
        (height, width, 3) uint8 RGB, about twice the face box, and (5, 2) float32 landmarks in it.

    Raises:
        MediaError: it is no photo that can be read or processed.
        NoSample: it shows no face.
    """
    try:
        faces = find_photo_faces(read_photo(path), detector, _SHARES)
    except _PROCESSING as error:
        raise _not_processed(path, error) from error
    if not faces:
        raise NoSample(path, "shows no face that the detector finds: choose a clearer photo")
    shot = faces[0].shots[0]
    return stored_face(FaceCrop(shot.pixels, shot.landmarks))


def read_voice(path: Path, span: Span | None = None) -> NDArray[np.float32]:
    """The sound of a file, as the evidence keeps it: in steps of 1/32768.

    Args:
        path: a sound, or a film with sound.
        span: only this stretch of it; one without an end goes to that of the file.

    Returns:
        (samples,) float32 mono at 16 kHz, within [-1, 32767/32768].

    Raises:
        MediaError: it holds no sound that can be read or processed.
        NoSample: its sound lasts no time at all, or not to where the stretch begins.
    """
    if span is not None:
        span = Span(span.start, min(span.end, max(span.start, in_force().seconds)))
    try:
        waveform, _warnings = read_audio(path, span)
    except _PROCESSING as error:
        raise _not_processed(path, error) from error
    if not len(waveform):
        raise NoSample(path, "holds a sound of no length: record it again")
    return stored_voice(waveform)


def stored_face(crop: FaceCrop) -> FaceCrop:
    """A crop as it comes back from the evidence: landmarks to a hundredth of a pixel.

    A probe goes through this too, so that asking with a file that is in gives its very vectors.
    """
    return FaceCrop(crop.pixels, np.round(crop.landmarks, 2).astype(np.float32))


def stored_voice(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """A turn as it comes back from the evidence: (samples,) float32 in steps of 1/32768."""
    steps = np.clip(np.round(np.asarray(waveform, np.float64) * _STEPS), -_STEPS, _STEPS - 1)
    return (steps / _STEPS).astype(np.float32)


def _not_processed(path: Path, error: Exception) -> MediaError:
    reason = f"cannot be processed ({type(error).__name__}: {error}): leave it out, or convert it and try again"
    return MediaError(path, reason)
