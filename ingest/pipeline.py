"""From a file to what is found in it: the room's one door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder, Sample
from encoders.face import FaceDetector
from encoders.space import Embedding, Modality
from encoders.voice import SAMPLE_RATE, SpeechDetector
from ingest.faces import FaceSettings, find_photo_faces, follow_faces
from ingest.media import MediaError, MediaInfo, probe, read_audio, read_frames, read_photo
from ingest.mouths import MouthMotion, Passing
from ingest.pairing import PairingSettings, judge_speaking, loudness
from ingest.track import Extraction, FaceTrack, MediaId, Speaking, SpeechTurn, media_id
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
    pairing: PairingSettings = field(default_factory=PairingSettings)

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
        heard, seen = _Heard(), _Seen()
        if info.has_sound:
            try:
                heard = self._turns(path, warnings)
                reached = max(reached, heard.seconds)
            except MediaError as error:
                refusals.append(error)
        progress(1 - _SHARE_OF_FACES if info.has_pictures else 1.0)
        if info.has_pictures:
            try:
                seen = self._faces(path, info, bool(heard.turns), warnings, progress)
                reached = max(reached, seen.seconds)
            except MediaError as error:
                refusals.append(error)
        if len(refusals) == info.has_sound + info.has_pictures:
            raise refusals[-1]
        warnings += [error.reason for error in refusals]
        speaking = self._speaking(heard, seen)
        duration = info.duration or reached
        return Extraction(media, info.kind, duration, seen.faces, heard.turns, tuple(warnings), speaking)

    def _turns(self, path: Path, warnings: list[str]) -> _Heard:
        waveform, oddities = read_audio(path)
        warnings += oddities
        describe = _describer(self._voice_encoder, Modality.VOICE)
        turns = find_speech_turns(waveform, self._speech_detector, describe, self.settings.voices)
        return _Heard(turns, loudness(waveform), len(waveform) / SAMPLE_RATE)

    def _faces(
        self, path: Path, info: MediaInfo, watch_mouths: bool, warnings: list[str], progress: OnProgress
    ) -> _Seen:
        reached = [0.0]
        passing = Passing() if watch_mouths else None
        fps = self.settings.faces.fps
        # A multiple, so that faces are looked for in the very pictures in which they would be without mouths.
        rate = fps * np.ceil(self.settings.pairing.fps / fps) if watch_mouths else fps

        def watched() -> Iterator[tuple[float, NDArray[np.uint8]]]:
            for time, picture in read_frames(path, rate, warnings=warnings):
                reached[0] = time
                if info.duration > 0:
                    progress(1 - _SHARE_OF_FACES * (1 - min(1.0, time / info.duration)))
                if passing is not None:
                    passing.pass_by(time, picture)
                yield time, picture

        describe = _describer(self._face_encoder, Modality.FACE)
        until = info.duration or np.inf
        looked_at = every(watched(), fps)
        tracks, mouths = follow_faces(looked_at, self._face_detector, describe, self.settings.faces, until, passing)
        return _Seen(tracks, mouths, reached[0])

    def _speaking(self, heard: _Heard, seen: _Seen) -> tuple[Speaking, ...]:
        """Who speaks, if there were pictures to judge it from."""
        if not seen.seconds and not seen.faces:
            return ()
        return judge_speaking(heard.turns, heard.loudness, seen.faces, seen.mouths, self.settings.pairing)


@dataclass(frozen=True, eq=False)
class _Heard:
    """What the sound holds, and the second at which it ends."""

    turns: tuple[SpeechTurn, ...] = ()
    loudness: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the pictures hold, and the second at which they end."""

    faces: tuple[FaceTrack, ...] = ()
    mouths: tuple[MouthMotion, ...] = ()
    seconds: float = 0.0


def every(pictures: Iterable[tuple[float, NDArray[np.uint8]]], fps: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Of pictures with their seconds, the first at or after each 1 / fps: those that ``read_frames`` gives at fps."""
    due = 0.0
    for time, picture in pictures:
        if time >= due - 1e-6:
            due = max(due, np.floor(time * fps + 1e-6) / fps) + 1 / fps
            yield time, picture


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
