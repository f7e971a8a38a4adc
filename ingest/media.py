"""Films and sound in: with :mod:`ingest.recording`, which writes, the only file that knows PyAV.

One clock: second 0 is the earliest start of the picture and sound streams that can be decoded, so that a
sound that begins late, or has gaps, stays beside its pictures. A span is exactly that part of the whole:
pictures are trusted from a key frame on that lies before it, and sound is decoded from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.stream import Discard
from av.video.frame import PictureType
from numpy.typing import NDArray

from encoders.voice import SAMPLE_RATE
from ingest.content import (
    MEDIA_EXTENSIONS,
    MediaError,
    MediaInfo,
    Problems,
    is_cut_short,
    is_photo,
    photo_size,
    read_head,
    read_photo,
    refuse_endless,
    refuse_huge,
    refuse_long,
    refuse_many,
    why_not_media,
)
from ingest.limits import HIGHEST_RATE, LOWEST_RATE, in_force
from ingest.listening import Levels
from ingest.recording import read_flac, write_film, write_flac
from ingest.track import Span
from ingest.waveform import Waveform

__all__ = [
    "MEDIA_EXTENSIONS",
    "SAMPLE_RATE",
    "MediaError",
    "MediaInfo",
    "probe",
    "read_audio",
    "read_flac",
    "read_frames",
    "read_photo",
    "write_film",
    "write_flac",
]


# Stamps closer than this to the sound's own count of samples are jitter, not gaps. Seconds.
JITTER_SECONDS = 0.1
# What ends the packets of a file before its end. PyAV raises IndexError at the end if a stream began in the middle.
CUT_OFF = (av.FFmpegError, OSError, IndexError)
# Room for sound whose header does not tell how long it is. Seconds.
UNKNOWN_SECONDS = 60.0
# How far before a span a key frame is looked for, one after the other: containers without an index (MPEG) land
# anywhere, and key frames may be far apart. Then the film is decoded from its beginning. Seconds.
SEEK_LEADS = (0.0, 10.0, 60.0)
# Containers that can be entered in the middle, and which key frame after that has its own stamp: what is entered in
# the middle of an MPEG program stream begins with stamps of other pictures. Others are read from their beginning.
SEEKABLE = {"mov": 1, "matroska": 1, "avi": 1, "flv": 1, "mpegts": 1, "mpeg": 2}
# Decoding less than this is quicker than seeking. Seconds.
WORTH_SEEKING_SECONDS = 1.0
# Channels are mixed as broadcasters do: each side half, the centre, where people speak, 3 dB down (ITU-R BS.775), so
# that stereo is as loud as its mono copy. FFmpeg's own mix is 3 dB louder, and clips. Fixed numbers: a span is as loud
# as in the whole.
MIXING = {"rematrix_maxval": "99", "rematrix_volume": str(0.5**0.5)}


class _Film:
    """An open container with the streams that are used and the clock's origin."""

    def __init__(self, path: Path, container: av.container.InputContainer, *, cut_short: bool) -> None:
        self.path = path
        self.problems = Problems(path, cut_short)
        self.container = container
        refuse_many(path, len(container.streams))
        self.pictures = next((s for s in container.streams.video if _moves(s)), None)
        self.sounds = sorted((s for s in container.streams.audio if _sounds(s)), key=_preference)
        self.sound = self.sounds[0] if self.sounds else None
        for what, chosen, streams in (
            ("pictures", self.pictures, container.streams.video),
            ("sound", self.sound, container.streams.audio),
        ):
            if chosen is None and any(not _decodable(stream) for stream in streams):
                self.problems.unread.append(f"its {what} cannot be read, the codec is not known: convert it")
        if self.pictures is None and any(map(_sizeless, container.streams.video)):
            self.problems.unread.append("its pictures are said to be of 0 x 0 pixels and cannot be read: convert it")
        self.used = [stream for stream in (self.pictures, *self.sounds) if stream is not None]
        if not self.used:
            nothing = "holds neither a picture nor a sound stream that can be decoded: convert it"
            raise MediaError(path, "; ".join(self.problems.unread) or nothing)
        starts = [s.start_time * s.time_base for s in self.used if s.start_time is not None and s.time_base]
        self.origin = min(starts, default=Fraction(0))
        self._shown: Iterator[av.VideoFrame] | None = None
        if self.pictures is not None:
            context = self.pictures.codec_context
            context.thread_type, context.options = "AUTO", in_force().for_decoders()
            refuse_huge(path, context.width, context.height, in_force().frame_pixels)
        refuse_long(path, self.seconds())

    def seconds(self, stream: av.VideoStream | av.AudioStream | None = None) -> float:
        """Where a stream, or the whole file, ends on the clock as the headers say; 0 if they do not."""
        if stream is not None and stream.duration and stream.time_base:
            begin = stream.start_time * stream.time_base - self.origin if stream.start_time else 0
            return float(begin + stream.duration * stream.time_base)
        seconds = (self.container.duration or 0) / 1e6
        if "matroska" in self.container.format.name:
            seconds -= float(self.origin)  # it tells the last moment, others the length
        return max(0.0, seconds)

    def measured_seconds(self) -> float:
        """Where its last packet ends on the clock, for headers that do not say; reads it to its end.

        Raises:
            MediaError: that is beyond the longest that is read.
        """
        ends = {stream.index: 0.0 for stream in self.used}
        try:
            for packet in self.container.demux(*self.used):
                stream, stamp = packet.stream, packet.dts if packet.pts is None else packet.pts
                if not packet.size or not stream.time_base:
                    continue  # PyAV ends each stream with an empty one
                begin = ends[stream.index] if stamp is None else float(stamp * stream.time_base - self.origin)
                length = float((packet.duration or 0) * stream.time_base)
                if not length and isinstance(stream, av.VideoStream):
                    length = 1 / float(stream.average_rate or 25)
                ends[stream.index] = max(ends[stream.index], begin + length)
                refuse_long(self.path, ends[stream.index])
        except CUT_OFF:
            pass  # what there is counts
        return max(ends.values())

    def time(self, frame: av.VideoFrame | av.AudioFrame) -> float | None:
        """Seconds on the clock, None for a frame without a stamp."""
        if frame.pts is None or not frame.time_base:
            return None
        return float(frame.pts * frame.time_base - self.origin)

    def lands_before(self, begin: float, lead: float) -> bool:
        """Go to a key frame that is shown at or before a second; False where none is found, then it is of no use.

        Args:
            begin: seconds on the clock.
            lead: how long before it to look.

        What is shown after such a key frame needs nothing before it. Only a picture that is whole in itself is
        trusted: decoders call key frame also where a gradual refresh begins.
        """
        stream, passed = self.pictures, 0
        needed = next((SEEKABLE[name] for name in self.container.format.name.split(",") if name in SEEKABLE), 0)
        if stream is None or not stream.time_base or not needed:
            return False
        try:
            self.container.seek(int((Fraction(begin - lead) + self.origin) / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError, OverflowError):
            return False
        shown = self.video_frames()
        for frame in shown:
            passed += frame.key_frame and frame.pict_type == PictureType.I
            if passed == needed:
                time = self.time(frame)
                self.problems.broken_packets = 0  # pieces whose beginning lies before
                self._shown = chain([frame], shown)
                return time is not None and time <= begin
        return False

    def video_frames(self) -> Iterator[av.VideoFrame]:
        """Decode the pictures to their end, from where it landed."""
        return self._shown or (one for one in self._frames(self.pictures) if isinstance(one, av.VideoFrame))

    def audio_frames(self) -> Iterator[av.AudioFrame]:
        """Decode the sound to its end."""
        return (one for one in self._frames(self.sound) if isinstance(one, av.AudioFrame))

    def _frames(self, stream: av.VideoStream | av.AudioStream | None) -> Iterator[object]:
        """Decode a stream, passing over packets that do not decode."""
        for other in self.container.streams:
            if other is not stream:
                other.discard = Discard.all  # not even read, where the container allows it
        packets = self.container.demux(*([stream] if stream else []))
        while True:
            try:
                packet = next(packets, None)
            except CUT_OFF as error:
                self.problems.cut_off = not isinstance(error, IndexError)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self.problems.broken_packets += 1
                continue
            self.problems.frames += len(frames)
            yield from frames


def _decodable(stream: av.VideoStream | av.AudioStream) -> bool:
    """Whether a stream has a decoder that may be used; PyAV gives no context for a codec that FFmpeg does not know."""
    allowed, context = in_force().decoders, stream.codec_context
    return context is not None and (allowed is None or context.codec.name in allowed)


def _sizeless(stream: av.VideoStream) -> bool:
    """Whether a video stream could be decoded if its pictures had a size."""
    return _decodable(stream) and not (stream.codec_context.width > 0 and stream.codec_context.height > 0)


def _moves(stream: av.VideoStream) -> bool:
    """Whether a video stream is a film and not a cover picture or something without a decoder."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return _decodable(stream) and not stream.disposition & still and not _sizeless(stream)


def _sounds(stream: av.AudioStream) -> bool:
    """Whether a sound stream can be decoded; where one begins late in a broadcast its rate is not known at first."""
    late = "mpeg" in stream.container.format.name and stream.codec_context and not stream.codec_context.sample_rate
    return _decodable(stream) and (late or LOWEST_RATE <= stream.codec_context.sample_rate <= HIGHEST_RATE)


def _preference(stream: av.AudioStream) -> tuple[bool, bool, int]:
    """Sorts streams of sound as players choose: the default one first, commentary and description last."""
    flags, kind = stream.disposition, av.stream.Disposition
    beside = kind.comment | kind.visual_impaired | kind.hearing_impaired | kind.descriptions | kind.karaoke
    return bool(flags & beside), not flags & kind.default, stream.index


@contextmanager
def _opened(path: Path) -> Iterator[_Film]:
    """Open a film or sound; translates what FFmpeg and the system raise into MediaError.

    FFmpeg is handed an open file, not a name: whatever the content says, it cannot open another one, and no name
    or extension can choose how it is read.
    """
    head = read_head(path)
    if is_photo(head):
        raise MediaError(path, "is a photo, it has no moving pictures and no sound")
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with av.open(
                "fd:",
                "r",
                metadata_errors="replace",
                options=in_force().for_decoders(),
                container_options=in_force().for_containers(descriptor),
            ) as container:
                yield _Film(path, container, cut_short=is_cut_short(path, head))
        finally:
            os.close(descriptor)
    except av.InvalidDataError as error:
        raise MediaError(path, why_not_media(head)) from error
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error  # without FFmpeg's name of the open file
        raise MediaError(path, f"cannot be decoded ({told}): {why_not_media(head)}") from error


def probe(path: Path) -> MediaInfo:
    """Tell what a file holds from its content; the extension does not matter.

    Raises:
        MediaError: it is no readable medium, or larger or longer than the bounds.

    A film or sound whose header does not tell its duration is read to its end, without decoding it.
    """
    if is_photo(read_head(path)):
        width, height = photo_size(path)
        refuse_huge(path, width, height, in_force().picture_pixels)
        return MediaInfo("photo", 0.0, width, height, 0.0, has_sound=False, has_pictures=True)
    with _opened(path) as film:
        info = _info(film)
    if not info.duration:
        with _opened(path) as film:  # anew, because some of it has been read
            info = replace(info, duration=film.measured_seconds())
    return info


def _info(film: _Film) -> MediaInfo:
    """What an open film or sound holds, with the duration of its header."""
    pictures, seconds = film.pictures, film.seconds()
    if pictures is None:
        return MediaInfo("sound", seconds, 0, 0, 0.0, has_sound=True, has_pictures=False)
    rate = float(pictures.average_rate or pictures.guessed_rate or 0)
    width, height = pictures.codec_context.width, pictures.codec_context.height
    for frame in film.video_frames():  # only a frame knows how it is turned
        height, width = _upright(film.path, frame, pictures).shape[:2]
        break
    return MediaInfo("film", seconds, width, height, rate, film.sound is not None, has_pictures=True)


def read_frames(
    path: Path, fps: float, span: Span | None = None, warnings: list[str] | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode a film and give about ``fps`` pictures a second; all of them if it has fewer.

    Args:
        path: the film.
        fps: pictures wanted per second, above 0; the first at or after each 1 / fps is taken.
        span: only this stretch; default all.
        warnings: if given, sentences about what was odd are added to it at the end.

    Yields:
        Seconds on the media clock, rising, and (height, width, 3) uint8 RGB, upright, square pixels.

    Raises:
        MediaError: not a film, nothing of it decodes, or more than is read.
    """
    if not fps > 0:
        raise ValueError(f"pictures per second must be above 0, got {fps}")
    begin = span.start if span else 0.0
    for lead in (*(lead for lead in SEEK_LEADS if begin - lead > WORTH_SEEKING_SECONDS), None):
        with _opened(path) as film:
            if film.pictures is None:
                raise MediaError(path, "holds sound only, no pictures")
            if lead is None or film.lands_before(begin, lead):
                yield from _sampled(film, film.pictures, fps, span, [] if warnings is None else warnings)
                return


def _sampled(
    film: _Film, stream: av.VideoStream, fps: float, span: Span | None, warnings: list[str]
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The pictures of a film from where it is, about ``fps`` a second of those in the span."""
    begin = span.start if span else 0.0
    due, last = begin, -1.0
    usual = 1 / float(stream.average_rate or 25)
    for frame in film.video_frames():
        stamp = film.time(frame)
        time = max(0.0, stamp) if stamp is not None else max(0.0, last + usual)
        if span and time >= span.end:
            return
        refuse_long(film.path, time)
        refuse_endless(film.path, film.problems.frames, max(time, last))
        if time <= last:
            continue  # a clock that runs backwards
        last = time
        if time >= due - 1e-6:
            due = max(due, begin + np.floor((time - begin) * fps + 1e-6) / fps) + 1 / fps
            yield time, _upright(film.path, frame, stream)
    if not (span and film.problems.frames == 0):
        # also of a span: this is where the film ends, and not the span
        film.problems.report("pictures", warnings, reached=last + usual, expected=film.seconds(stream))


def _upright(path: Path, frame: av.VideoFrame, stream: av.VideoStream) -> NDArray[np.uint8]:
    """A frame as it is meant to be shown: RGB, square pixels, turned."""
    width = max(1, round(frame.width * float(stream.sample_aspect_ratio or 1)))
    refuse_huge(path, width, frame.height, in_force().frame_pixels)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns), dtype=np.uint8)


def read_audio(path: Path, span: Span | None = None) -> tuple[NDArray[np.float32], list[str]]:
    """Decode a file's sound to mono at 16 kHz, on the media clock: gaps are silence.

    Args:
        path: a film or sound.
        span: only this stretch; default from second 0 to the end of the sound.

    Returns:
        (samples,) float32 within [-1, 1], finite, and sentences about what was odd.

    Raises:
        MediaError: no sound stream, nothing of it decodes, or more than is read.
    """
    warnings: list[str] = []
    with _opened(path) as film:
        if len(film.sounds) > 1:
            film.sound = film.sounds[_preferred(path, warnings)]
        if film.sound is None:
            raise MediaError(path, "has no sound")
        begin, end = (span.start, span.end) if span else (0.0, in_force().seconds)
        clock = _SoundClock(max(film.seconds(film.sound), film.seconds()), begin, end, film.problems)
        for frame in film.audio_frames():
            if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
                film.problems.broken_packets += 1
                continue
            clock.add(film.time(frame), frame)
            refuse_long(path, clock.now)
            if clock.now >= end + 1.0:  # beyond it by more than the resampler holds back
                break
        if clock.now < end:
            # A film's sound may end early; only a length of its own tells that it was cut off.
            unknown = span or (film.pictures is not None and not film.sound.duration)
            expected = 0.0 if unknown else film.seconds(film.sound)
            film.problems.report("sound", warnings, reached=clock.now, expected=expected)
        samples = clock.finish(warnings)
    return samples[: round(end * SAMPLE_RATE) - round(begin * SAMPLE_RATE)], warnings


def _preferred(path: Path, warnings: list[str]) -> int:
    """Which of several streams of sound is heard, as its place in their order of preference; tells of the others."""
    with _opened(path) as film:
        numbers = {stream.index: f"number {number}" for number, stream in enumerate(film.container.streams.audio, 1)}
        levels = Levels([numbers[stream.index] for stream in film.sounds])
        tried = film.sounds[: levels.tried]
        places = {stream.index: place for place, stream in enumerate(tried)}
        try:
            for packet in film.container.demux(*tried):
                with suppress(av.FFmpegError, ValueError):
                    for frame in packet.decode():
                        if isinstance(frame, av.AudioFrame) and frame.sample_rate:
                            seconds = frame.samples / frame.sample_rate
                            levels.add(places[packet.stream.index], frame.to_ndarray(), seconds)
                if levels.decided:
                    break
        except CUT_OFF:
            pass  # what there is decides
    warnings.append(levels.sentence())
    return levels.chosen


class _SoundClock:
    """Puts decoded sound at its place in time: one resampler per stretch without gaps.

    Args:
        latest: second at which the sound ends as the headers say, 0 where they do not.
        begin: second from which on it is kept; what lies before is counted and forgotten.
        end: second at which reading ends.
        problems: jumps are counted here.
    """

    def __init__(self, latest: float, begin: float, end: float, problems: Problems) -> None:
        self.now = 0.0  # where the sound added so far ends, seconds
        self._latest = (latest or in_force().seconds) + 1.0  # a stamp after this is broken
        self._problems = problems
        self._first, self._place = round(begin * SAMPLE_RATE), 0
        expected = min(latest or begin + UNKNOWN_SECONDS, end) + 2.0 - begin
        self._waveform = Waveform(max(0, round(expected * SAMPLE_RATE)))
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[object, ...] = ()

    def add(self, time: float | None, frame: av.AudioFrame) -> None:
        """Append a frame that begins at ``time`` seconds (None: where the last one ended)."""
        if time is None:
            time = self.now
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        off = time - self.now
        if form != self._form or self._resampler is None or abs(off) > JITTER_SECONDS:
            self._flush()
            self._form = form
            options = MIXING if frame.layout.nb_channels > 1 else None
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE, options=options)
            if off > 0 and time <= self._latest:
                self._pad(round(time * SAMPLE_RATE))
                self.now = time
            elif abs(off) > JITTER_SECONDS:
                self._problems.missing_pieces += 1
        frame.pts = None  # placed here, not by the resampler
        self._append(self._resampler.resample(frame))
        self.now += frame.samples / frame.sample_rate

    def finish(self, warnings: list[str]) -> NDArray[np.float32]:
        """(samples,) float32, everything added from the beginning on that is kept, finite and within [-1, 1]."""
        self._flush()
        return self._waveform.finish(warnings)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = None

    def _pad(self, place: int) -> None:
        """Silence up to a place, in samples from second 0."""
        self._place = max(self._place, place)
        if self._place > self._first:
            self._waveform.pad(self._place - self._first)

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            self._place += len(samples)
            if (kept := self._place - self._first) > 0:
                self._waveform.append(samples[max(0, len(samples) - kept) :])
