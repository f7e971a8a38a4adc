"""Films and sound out: what we write ourselves, and FLAC of our own read back bit for bit.

Beside :mod:`ingest.media`, which reads what others wrote, the only file that knows PyAV.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from encoders.voice import SAMPLE_RATE
from ingest.content import MediaError

# Written files must not change with the FFmpeg version string or the number of cores.
BITEXACT = {"fflags": "+bitexact"}
# x264's macroblock tree takes, once in a hundred films, what happens to lie in memory into account.
VIDEO_OPTIONS = {"preset": "veryfast", "crf": "20", "threads": "1", "flags": "+bitexact", "x264-params": "mbtree=0"}
AUDIO_OPTIONS = {"flags": "+bitexact"}
AUDIO_BLOCK = 4096


def write_film(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    waveform: NDArray[np.float32] | None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Write an MP4 film, H.264 (yuv420p) with AAC sound; the same input gives the same bytes.

    Args:
        path: file to write; an existing one is replaced.
        frames: (height, width, 3) uint8 RGB pictures, all of one size, at least one; odd sizes are
            extended to even ones by repeating the last row or column.
        fps: pictures per second.
        waveform: (samples,) float32 mono within [-1, 1], or None for a film without sound.
        sample_rate: of the waveform, Hz; one that AAC knows (8000 to 96000).

    Raises:
        ValueError: no frames, or frames of unlike sizes.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options=BITEXACT) as container:
        pictures = container.add_stream("libx264", rate=rate, options=VIDEO_OPTIONS)
        pictures.pix_fmt = "yuv420p"
        sound = None
        if waveform is not None:
            sound = container.add_stream("aac", rate=sample_rate, layout="mono", options=AUDIO_OPTIONS)
        written = count = 0
        size: tuple[int, ...] | None = None
        for count, picture in enumerate(frames, start=1):
            even = _even(picture)
            if size is None:
                size = even.shape
                pictures.height, pictures.width = even.shape[:2]
            elif even.shape != size:
                raise ValueError(f"{path}: frame {count} is {even.shape}, the first was {size}")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = count - 1, 1 / rate
            container.mux(pictures.encode(frame))
            if sound is not None and waveform is not None:
                # Interleaved as it goes: players need sound and picture of one moment close together.
                written = _encode_sound(container, sound, waveform, written, int(count / rate * sample_rate))
        if not count:
            raise ValueError(f"{path}: a film needs at least one frame")
        container.mux(pictures.encode(None))
        if sound is not None and waveform is not None:
            _encode_sound(container, sound, waveform, written, len(waveform))
            container.mux(sound.encode(None))


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Extend a picture to even height and width, which yuv420p needs."""
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _encode_sound(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    waveform: NDArray[np.float32],
    start: int,
    end: int,
) -> int:
    """Encode waveform[start:end] in blocks; returns where the next call goes on."""
    end = min(end, len(waveform))
    for begin in range(start, end, AUDIO_BLOCK):
        block = np.ascontiguousarray(waveform[None, begin : min(begin + AUDIO_BLOCK, end)], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = stream.rate
        frame.pts, frame.time_base = begin, Fraction(1, stream.rate)
        container.mux(stream.encode(frame))
    return max(start, end)


def write_flac(target: Path | BinaryIO, waveform: NDArray[np.float32]) -> None:
    """Write (samples,) float32 mono at 16 kHz as 16-bit FLAC; the same samples give the same bytes.

    What :func:`read_flac` gives back is exactly the waveform rounded to 1/32768 and clipped to
    [-1, 32767/32768].
    """
    whole = np.clip(np.round(np.asarray(waveform, dtype=np.float64) * 32768), -32768, 32767).astype(np.int16)
    place = str(target) if isinstance(target, Path) else target
    with av.open(place, "w", format="flac", options=BITEXACT) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options=AUDIO_OPTIONS)
        stream.format = "s16"
        for begin in range(0, len(whole), AUDIO_BLOCK):
            block = np.ascontiguousarray(whole[None, begin : begin + AUDIO_BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts, frame.time_base = begin, Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_flac(source: Path | BinaryIO) -> NDArray[np.float32]:
    """Read what :func:`write_flac` wrote: (samples,) float32, exact multiples of 1/32768.

    Raises:
        MediaError: it is missing, or damaged.
    """
    name = source if isinstance(source, Path) else Path("FLAC data")
    try:
        with av.open(str(source) if isinstance(source, Path) else source, "r", format="flac") as container:
            stream = container.streams.audio[0]
            told = stream.duration  # samples, as the time base is one of them; None if there are none
            blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise MediaError(name, f"cannot be decoded as FLAC ({error}): it is damaged, extract it again") from error
    whole = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if len(whole) != (told or 0) or not stream.codec_context.extradata:
        raise MediaError(name, "cannot be decoded as FLAC to its end: it is damaged, extract it again")
    return whole.astype(np.float32) / np.float32(32768)
