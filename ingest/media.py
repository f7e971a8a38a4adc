"""Films and sound in: with :mod:`ingest.recording`, which writes, the only file that knows PyAV.

One clock: second 0 is the earliest start of the picture and sound streams that are used, so that a
sound that begins late, or has gaps, stays beside its pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
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
# Room for sound whose header does not tell how long it is. Seconds.
UNKNOWN_SECONDS = 60.0


class _Film:
    """An open container with the streams that are used and the clock's origin."""

    def __init__(self, path: Path, container: av.container.InputContainer, *, cut_short: bool) -> None:
        self.path = path
        self.problems = Problems(path, cut_short)
        self.container = container
        refuse_many(path, len(container.streams))
        self.pictures = next((s for s in container.streams.video if _moves(s)), None)
        self.sound = next((s for s in container.streams.audio if _sounds(s)), None)
        for what, chosen, streams in (
            ("pictures", self.pictures, container.streams.video),
            ("sound", self.sound, container.streams.audio),
        ):
            if chosen is None and any(not _decodable(stream) for stream in streams):
                self.problems.unread.append(f"its {what} cannot be read, the codec is not known: convert it")
        self.used = [stream for stream in (self.pictures, self.sound) if stream is not None]
        if not self.used:
            nothing = "holds neither a picture nor a sound stream that can be decoded: convert it"
            raise MediaError(path, "; ".join(self.problems.unread) or nothing)
        starts = [s.start_time * s.time_base for s in self.used if s.start_time is not None and s.time_base]
        self.origin = min(starts, default=Fraction(0))
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
        except (av.FFmpegError, OSError):
            pass  # cut off: what there is counts
        return max(ends.values())

    def time(self, frame: av.VideoFrame | av.AudioFrame) -> float | None:
        """Seconds on the clock, None for a frame without a stamp."""
        if frame.pts is None or not frame.time_base:
            return None
        return float(frame.pts * frame.time_base - self.origin)

    def video_frames(self) -> Iterator[av.VideoFrame]:
        """Decode the pictures to their end."""
        return (one for one in self._frames(self.pictures) if isinstance(one, av.VideoFrame))

    def audio_frames(self) -> Iterator[av.AudioFrame]:
        """Decode the sound to its end."""
        return (one for one in self._frames(self.sound) if isinstance(one, av.AudioFrame))

    def _frames(self, stream: av.VideoStream | av.AudioStream | None) -> Iterator[object]:
        """Decode a stream, passing over packets that do not decode."""
        packets = self.container.demux(*([stream] if stream else []))
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                self.problems.cut_off = True
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


def _moves(stream: av.VideoStream) -> bool:
    """Whether a video stream is a film and not a cover picture or something without a decoder."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    if not _decodable(stream) or stream.disposition & still:
        return False
    return stream.codec_context.width > 0 and stream.codec_context.height > 0


def _sounds(stream: av.AudioStream) -> bool:
    """Whether a sound stream can be decoded."""
    return _decodable(stream) and LOWEST_RATE <= stream.codec_context.sample_rate <= HIGHEST_RATE


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
        raise MediaError(path, f"cannot be decoded ({error}): {why_not_media(head)}") from error


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
    with _opened(path) as film:
        if film.pictures is None:
            raise MediaError(path, "holds sound only, no pictures")
        begin = span.start if span else 0.0
        due, last = begin, -1.0
        usual = 1 / float(film.pictures.average_rate or 25)
        if begin > 1.0:
            # Backward to a key frame; what lies before the span is decoded and passed over.
            film.container.seek(int((begin + float(film.origin)) * 1e6), backward=True, any_frame=False)
        for frame in film.video_frames():
            stamp = film.time(frame)
            time = max(0.0, stamp) if stamp is not None else last + usual if last >= 0 else begin
            if span and time >= span.end:
                break
            refuse_long(path, time)
            refuse_endless(path, film.problems.frames, max(time, last))
            if time <= last:
                continue  # a clock that runs backwards
            last = time
            if time >= due - 1e-6:
                due = max(due, begin + np.floor((time - begin) * fps + 1e-6) / fps) + 1 / fps
                yield time, _upright(path, frame, film.pictures)
        else:
            if not (span and film.problems.frames == 0):
                expected = 0.0 if span else film.seconds(film.pictures)
                told = [] if warnings is None else warnings
                film.problems.report("pictures", told, reached=last + usual, expected=expected)


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
    with _opened(path) as film:
        if film.sound is None:
            raise MediaError(path, "has no sound")
        warnings: list[str] = []
        end = span.end if span else in_force().seconds
        clock = _SoundClock(max(film.seconds(film.sound), film.seconds()), end, film.problems)
        for frame in film.audio_frames():
            clock.add(film.time(frame), frame)
            refuse_long(path, clock.now)
            if clock.now >= end + 1.0:  # beyond it by more than the resampler holds back
                break
        if clock.now < end:
            # A film's sound may end early; only a length of its own tells that it was cut off.
            unknown = span or (film.pictures is not None and not film.sound.duration)
            expected = 0.0 if unknown else film.seconds(film.sound)
            film.problems.report("sound", warnings, reached=clock.now, expected=expected)
        whole = clock.finish(film.sound.codec_context.channels, warnings)
    # A span is copied so that the rest can be freed; the whole may be gigabytes and is not.
    return whole[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)].copy() if span else whole, warnings


class _SoundClock:
    """Puts decoded sound at its place in time: one resampler per stretch without gaps.

    Args:
        latest: second at which the sound ends as the headers say, 0 where they do not.
        end: second at which reading ends.
        problems: jumps are counted here.
    """

    def __init__(self, latest: float, end: float, problems: Problems) -> None:
        self.now = 0.0  # where the sound added so far ends, seconds
        self._latest = (latest or in_force().seconds) + 1.0  # a stamp after this is broken
        self._problems = problems
        self._waveform = Waveform(round((min(latest or UNKNOWN_SECONDS, end) + 2.0) * SAMPLE_RATE))
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
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            if off > 0 and time <= self._latest:
                self._waveform.pad(round(time * SAMPLE_RATE))
                self.now = time
            elif abs(off) > JITTER_SECONDS:
                self._problems.missing_pieces += 1
        frame.pts = None  # placed here, not by the resampler
        self._append(self._resampler.resample(frame))
        self.now += frame.samples / frame.sample_rate

    def finish(self, channels: int, warnings: list[str]) -> NDArray[np.float32]:
        """(samples,) float32, everything added, finite and within [-1, 1]."""
        self._flush()
        return self._waveform.finish(channels, warnings)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = None

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self._waveform.append(frame.to_ndarray().reshape(-1).astype(np.float32, copy=False))
