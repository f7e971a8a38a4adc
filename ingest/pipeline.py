"""From a file to what is found in it: the room's one door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder, Sample
from encoders.face import FaceDetector
from encoders.space import Embedding, Modality
from encoders.voice import SAMPLE_RATE, SpeechDetector
from ingest.ahead import ahead
from ingest.cells import Picture, follow_cells
from ingest.faces import FaceSettings, find_photo_faces
from ingest.joining import Joining, described
from ingest.media import MediaError, MediaInfo, probe, read_audio, read_frames, read_photo
from ingest.mouths import Passing
from ingest.pairing import PairingSettings, judge_speaking, loudness
from ingest.shards import SHARD_SECONDS, Heard, Plan, Seen, plan, whole_film
from ingest.track import Extraction, MediaId, Span, Speaking, media_id
from ingest.voices import VoiceSettings, find_speech_turns
from ingest.waveform import let_go

OnProgress = Callable[[float], None]
"""Receives the share of a file that is done, rising from 0 to 1."""

# Following faces takes nearly all the time of a film; the rest is its sound.
_SHARE_OF_FACES = 0.9
# Pictures that wait for the faces in them to be found, at most.
_DECODED_AHEAD = 8
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
        shard_seconds: longest piece of a film that is looked at at once; nothing of the answer depends on it.
    """

    def __init__(
        self,
        face_detector: FaceDetector,
        speech_detector: SpeechDetector,
        face_encoder: Encoder | None,
        voice_encoder: Encoder | None,
        settings: ExtractionSettings | None = None,
        shard_seconds: float = SHARD_SECONDS,
    ) -> None:
        self.settings = settings or ExtractionSettings()
        self._shard_seconds = shard_seconds
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
        with _refusing(path):
            return self._extract(path, _telling(on_progress))

    def plan(self, info: MediaInfo) -> Plan:
        """Into which pieces of work a file is cut: :func:`ingest.shards.plan` with these settings."""
        return plan(info, self.settings.faces, self._shard_seconds)

    def look(
        self, path: Path, span: Span | None = None, on_progress: OnProgress | None = None, *, mouths: bool = True
    ) -> Seen:
        """Find the faces of one shard of a film.

        Args:
            path: the film.
            span: one of its plan's; None: all of it. One that reaches the film's end goes on to wherever it ends.
            on_progress: told the share of the shard that is done; what it raises ends the work, and nothing is left.
            mouths: whether they are watched, if the film has sound; without speech nothing depends on it.

        Returns:
            What its pictures show. It is a result, too, that the film's pictures are of no use.

        Raises:
            MediaError: the file cannot be read or processed.
            ValueError: the span does not begin and end with cells.
        """
        with _refusing(path):
            info = probe(path)
        cells = self._cells(span, info)
        with _refusing(path):
            return self._look(path, info, cells, _telling(on_progress), mouths)

    def listen(self, path: Path) -> Heard:
        """Find the speech of a film or sound.

        Returns:
            What is heard. It is a result, too, that the sound is of no use.

        Raises:
            MediaError: the file cannot be processed.
        """
        with _refusing(path):
            return self._listen(path)

    def join(
        self, path: Path, media: MediaId, info: MediaInfo, heard: Heard | None, seen: Iterable[Seen]
    ) -> Extraction:
        """Make one answer of what the pieces of a film or sound gave, the same however it was cut.

        Args:
            path: the file, for what is told of it; it is not opened.
            media: its content hash.
            info: what it holds.
            heard: what its sound gave; None if it has none.
            seen: what its pictures gave, all shards in order of time, taken one after the other; empty if it has
                none.

        Raises:
            MediaError: nothing of the file is of use.
            PartError: a shard is missing.
        """
        with _refusing(path):
            return self._join(path, media, info, heard, seen)

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
        """All pieces of work one after the other; mouths are watched only where somebody speaks."""
        pieces = self.plan(info)
        heard = self._listen(path) if pieces.sound else None
        progress(1 - _SHARE_OF_FACES if pieces.pictures else 1.0)
        mouths = heard is not None and bool(heard.turns)

        def shard(number: int, span: Span) -> Seen:
            def told(share: float) -> None:
                progress(1 - _SHARE_OF_FACES * (1 - (number + share) / len(pieces.pictures)))

            return self._look(path, info, self._cells(span if pieces.is_cut else None, info), told, mouths)

        return self._join(path, media, info, heard, (shard(*one) for one in enumerate(pieces.pictures)))

    def _listen(self, path: Path) -> Heard:
        try:
            waveform, oddities = read_audio(path)
        except MediaError as error:
            return Heard((), np.zeros(0, np.float32), refusal=error.reason)
        describe = _describer(self._voice_encoder, Modality.VOICE)
        turns = find_speech_turns(waveform, self._speech_detector, describe, self.settings.voices)
        levels = loudness(waveform)
        let_go(waveform)
        return Heard(turns, levels, len(waveform) / SAMPLE_RATE, tuple(oddities))

    def _cells(self, span: Span | None, info: MediaInfo) -> tuple[int, int | None]:
        """The cells of a span: the first, and the first behind it, or None for the end of the film."""
        faces = self.settings.faces
        if span is None:
            return 0, None
        first, after = faces.cell_at(span.start), faces.cell_at(span.end)
        ends = span.end >= info.duration - 1e-6
        if abs(faces.border(first) - span.start) > 1e-6 or not (ends or abs(faces.border(after) - span.end) <= 1e-6):
            raise ValueError(
                f"[{span.start}, {span.end}) does not begin and end with cells of {faces.border(1)} s: take a plan's"
            )
        return first, None if ends else after

    def _look(
        self, path: Path, info: MediaInfo, cells: tuple[int, int | None], progress: OnProgress, mouths: bool
    ) -> Seen:
        faces, (first, after) = self.settings.faces, cells
        passing = Passing() if mouths and info.has_sound else None
        # A multiple, so that faces are looked for in the very pictures in which they would be without mouths.
        rate = faces.fps * (np.ceil(self.settings.pairing.fps / faces.fps) if passing else 1)
        begin, end = faces.border(first), faces.border(after) if after is not None else np.inf
        span = None if (first, after) == (0, None) else Span(faces.lead_in(first), end)
        warnings: list[str] = []
        reached = [0.0]

        def watched() -> Generator[Picture, None, None]:
            with closing(ahead(read_frames(path, rate, span, warnings), _DECODED_AHEAD)) as pictures:
                for time, picture in pictures:
                    if after is not None and faces.cell_at(time) >= after:
                        break
                    if faces.cell_at(time) >= first:
                        reached[0] = time
                        progress(_share(time, begin, min(end, info.duration)))
                    if passing is not None:
                        passing.pass_by(time, picture)
                    yield time, picture

        describe = _describer(self._face_encoder, Modality.FACE)
        found = []
        try:
            with closing(watched()) as pictures:
                for cell in follow_cells(
                    every(pictures, faces.fps), self._face_detector, describe, faces, passing, first
                ):
                    # A piece of a film is compared with the others later, and its vectors cost least here.
                    found.append(cell if span is None else described(cell, describe))  # noqa: PERF401
        except MediaError as error:
            return Seen(first, after, refusal=error.reason)
        return Seen(first, after, tuple(found), reached[0], tuple(warnings))

    def _join(
        self, path: Path, media: MediaId, info: MediaInfo, heard: Heard | None, seen: Iterable[Seen]
    ) -> Extraction:
        """Faces and speech; if one of the two cannot be had, the other and a warning."""
        joining = Joining(self.settings.faces, _describer(self._face_encoder, Modality.FACE))
        reached, refusal, warnings, shards = 0.0, "", list(heard.warnings if heard else ()), 0
        for shard in whole_film(seen):
            shards += 1
            refusal = refusal or shard.refusal
            if not refusal:
                reached = max(reached, shard.reached)
                warnings += shard.warnings
                for cell in shard.cells:
                    joining.add(cell)
        if shards and not (refusal or reached or joining.pictures):
            refusal = "has a header, but none of its pictures decodes: damaged, copy it again"
        refusals = [reason for reason in (heard.refusal if heard else "", refusal) if reason]
        if len(refusals) == (heard is not None) + bool(shards):
            raise MediaError(path, refusals[-1] if refusals else "holds neither pictures nor sound")
        if refusal:  # shards before the one that is of no use do not make a film
            joining, reached = Joining(self.settings.faces, None), 0.0
        faces, motions = joining.tracks(info.duration or np.inf)
        heard = heard or Heard((), np.zeros(0, np.float32))
        speaking: tuple[Speaking, ...] = ()
        if reached or faces:  # there were pictures to judge it from
            speaking = judge_speaking(heard.turns, heard.loudness, faces, motions, self.settings.pairing)
        duration = info.duration or max(reached, heard.seconds)
        told = tuple(dict.fromkeys([*warnings, *refusals]))
        return Extraction(media, info.kind, duration, faces, heard.turns, told, speaking)


def every(pictures: Iterable[Picture], fps: float) -> Iterator[Picture]:
    """Of pictures with their seconds, the first at or after each 1 / fps: those that ``read_frames`` gives at fps."""
    due = 0.0
    for time, picture in pictures:
        if time >= due - 1e-6:
            due = max(due, np.floor(time * fps + 1e-6) / fps) + 1 / fps
            yield time, picture


class _Abandoned(Exception):
    """Carries what a listener to progress raised past all that handles the errors of files."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _telling(on_progress: OnProgress | None) -> OnProgress:
    """A listener whose exceptions nobody takes for a file's."""

    def tell(share: float) -> None:
        try:
            if on_progress is not None:
                on_progress(share)
        except Exception as error:
            raise _Abandoned(error) from error

    return tell


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What breaks on the content of a file is the file's refusal."""
    try:
        yield
    except _Abandoned as abandoned:
        raise abandoned.error from None
    except _PROCESSING as error:
        reason = f"cannot be processed ({type(error).__name__}: {error}): leave it out, or convert it and try again"
        raise MediaError(path, reason) from error


def _share(time: float, begin: float, end: float) -> float:
    """How much of a stretch lies behind, 0 to 1."""
    return min(1.0, max(0.0, (time - begin) / (end - begin))) if end > begin else 0.0


def _describer(
    encoder: Encoder | None, modality: Modality
) -> Callable[[Sequence[Sample]], list[NDArray[np.float32] | None]] | None:
    """An encoder as the function from samples to vectors that faces and voices ask for."""
    if encoder is None:
        return None
    return lambda samples: [
        one.vector if isinstance(one, Embedding) else None for one in encoder.encode(modality, samples)
    ]
