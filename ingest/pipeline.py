"""From a file to what is found in it: the room's one door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder, Sample
from encoders.face import FaceDetector
from encoders.space import Embedding, Modality
from encoders.voice import SAMPLE_RATE, SpeechDetector
from ingest.faces import FaceSettings, find_face_tracks, find_photo_faces
from ingest.media import MediaError, MediaInfo, probe, read_audio, read_frames, read_photo
from ingest.track import Extraction, FaceTrack, MediaId, SpeechTurn, media_id
from ingest.voices import VoiceSettings, find_speech_turns

OnProgress = Callable[[float], None]
"""Receives the share of a file that is done, rising from 0 to 1."""

# Following faces takes nearly all the time of a film; the rest is its sound.
_SHARE_OF_FACES = 0.9
# What networks and picture libraries raise on content that nobody foresaw: one file never stops a batch.
_PROCESSING = (RuntimeError, ValueError, AttributeError, MemoryError, cv2.error)


@dataclass(frozen=True)
class ExtractionSettings:
    """Everything that decides, beside the networks, what is found in a file."""

    faces: FaceSettings = field(default_factory=FaceSettings)
    voices: VoiceSettings = field(default_factory=VoiceSettings)

    def digest(self) -> str:
        """SHA-256, 64 hex digits: equal for equal settings, so that a record can say which made it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Extractor:
    """Finds the faces and the speech of films, sounds and photos.

    Args:
        face_detector: finds faces in pictures.
        speech_detector: finds speech in sound.
        face_encoder: follows a face across cuts; None: every cut begins new tracks.
        voice_encoder: tells speakers apart; None: all speech is by one speaker.
        settings: default :class:`ExtractionSettings`.
    """

    def __init__(
        self,
        face_detector: FaceDetector,
        speech_detector: SpeechDetector,
        face_encoder: Encoder | None,
        voice_encoder: Encoder | None,
        settings: ExtractionSettings | None = None,
    ) -> None:
        self.settings = settings or ExtractionSettings()
        self._face_detector = face_detector
        self._speech_detector = speech_detector
        self._face_encoder = face_encoder
        self._voice_encoder = voice_encoder

    def extract(self, path: Path, on_progress: OnProgress | None = None) -> Extraction:
        """Find everything in one file; the same file gives the same answer.

        Args:
            path: a film, sound or photo; its content decides, not its extension.
            on_progress: told the share of the file that is done.

        Raises:
            MediaError: the file cannot be read, nothing of it decodes, or it cannot be processed.
        """
        try:
            return self._extract(path, on_progress or _ignore)
        except _PROCESSING as error:
            reason = f"cannot be processed ({type(error).__name__}: {error}): leave it out, or convert it and try again"
            raise MediaError(path, reason) from error

    def _extract(self, path: Path, progress: OnProgress) -> Extraction:
        progress(0.0)
        info = probe(path)
        try:
            media = media_id(path)
        except OSError as error:
            raise MediaError(path, f"cannot be read to its end ({error}): check the disk") from error
        is_photo = info.kind == "photo"
        found = self._photo(path, media) if is_photo else self._film(path, media, info, progress)
        progress(1.0)
        return found

    def _photo(self, path: Path, media: MediaId) -> Extraction:
        warnings: list[str] = []
        faces = find_photo_faces(read_photo(path, warnings), self._face_detector)
        return Extraction(media, "photo", 0.0, faces, (), tuple(warnings))

    def _film(self, path: Path, media: MediaId, info: MediaInfo, progress: OnProgress) -> Extraction:
        """Faces and speech; if one of the two cannot be had, the other and a warning."""
        warnings: list[str] = []
        refusals: list[MediaError] = []
        reached = 0.0
        turns: tuple[SpeechTurn, ...] = ()
        faces: tuple[FaceTrack, ...] = ()
        if info.has_sound:
            try:
                turns, seconds = self._turns(path, warnings)
                reached = max(reached, seconds)
            except MediaError as error:
                refusals.append(error)
        progress(1 - _SHARE_OF_FACES if info.has_pictures else 1.0)
        if info.has_pictures:
            try:
                faces, seconds = self._faces(path, info, warnings, progress)
                reached = max(reached, seconds)
            except MediaError as error:
                refusals.append(error)
        if len(refusals) == info.has_sound + info.has_pictures:
            raise refusals[-1]
        warnings += [error.reason for error in refusals]
        return Extraction(media, info.kind, info.duration or reached, faces, turns, tuple(warnings))

    def _turns(self, path: Path, warnings: list[str]) -> tuple[tuple[SpeechTurn, ...], float]:
        """Speech turns, and the second at which the sound ends."""
        waveform, oddities = read_audio(path)
        warnings += oddities
        describe = _describer(self._voice_encoder, Modality.VOICE)
        turns = find_speech_turns(waveform, self._speech_detector, describe, self.settings.voices)
        return turns, len(waveform) / SAMPLE_RATE

    def _faces(
        self, path: Path, info: MediaInfo, warnings: list[str], progress: OnProgress
    ) -> tuple[tuple[FaceTrack, ...], float]:
        """Face tracks, and the second at which the pictures end."""
        reached = [0.0]

        def watched() -> Iterator[tuple[float, NDArray[np.uint8]]]:
            for time, picture in read_frames(path, self.settings.faces.fps, warnings=warnings):
                reached[0] = time
                if info.duration > 0:
                    progress(1 - _SHARE_OF_FACES * (1 - min(1.0, time / info.duration)))
                yield time, picture

        describe = _describer(self._face_encoder, Modality.FACE)
        until = info.duration or np.inf
        tracks = find_face_tracks(watched(), self._face_detector, describe, self.settings.faces, until)
        return tracks, reached[0]


def _describer(
    encoder: Encoder | None, modality: Modality
) -> Callable[[Sequence[Sample]], list[NDArray[np.float32] | None]] | None:
    """An encoder as the function from samples to vectors that faces and voices ask for."""
    if encoder is None:
        return None
    return lambda samples: [
        one.vector if isinstance(one, Embedding) else None for one in encoder.encode(modality, samples)
    ]


def _ignore(_share: float) -> None:
    """Progress that nobody watches."""
