"""Media of every container and codec, all of one known sequence of pictures and one known sound.

A picture tells its own number, so that a decoded one says when it should be shown, and its corners say how it is
turned. The sound is a quiet tone with a loud click at known moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 128, 96
RATE = 25
COUNT = 100
SECONDS = COUNT / RATE
TONE_LEVEL = 0.1
"""Amplitude of the quiet tone."""
CLICKS = (1.0, 2.6)
"""Seconds at which a click begins."""
CLICK_SECONDS = 0.02
_CORNERS = ((0, 0, (200, 30, 30)), (0, 96, (30, 200, 30)), (64, 0, (30, 30, 200)))
_FORMATS = {"jpg": "jpeg", "tif": "tiff", "pgm": "ppm"}


@dataclass(frozen=True)
class Recipe:
    """How a medium is made.

    Args:
        extension: of its name.
        container: FFmpeg's name of the format.
        pictures: FFmpeg's name of the encoder, or none.
        sounds: likewise; more than one make several streams.
        rate: of the sound, Hz.
        options: of the picture encoder.
        container_options: of the container.
    """

    extension: str
    container: str
    pictures: str | None = None
    sounds: tuple[str, ...] = ()
    rate: int = 48_000
    layout: str = "mono"
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.extension, *((self.pictures,) if self.pictures else ()), *self.sounds))


X264 = {"preset": "ultrafast", "x264-params": "bframes=2:keyint=12:min-keyint=12:scenecut=0:threads=1"}
X264_OPEN = {"preset": "ultrafast", "x264-params": "bframes=2:keyint=12:scenecut=0:open-gop=1:threads=1"}
X265 = {"preset": "ultrafast", "x265-params": "bframes=2:keyint=12:log-level=none:pools=none"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "5", "auto-alt-ref": "1"}
AV1 = {"preset": "8", "crf": "10", "svtav1-params": "keyint=12:lp=1"}
B_FRAMES = {"bf": "2", "g": "12", "b": "1000000"}

FILMS = (
    Recipe("mp4", "mp4", "libx264", ("aac",), options=X264),
    Recipe("mp4", "mp4", "libx265", ("aac",), options=X265),
    Recipe("mp4", "mp4", "libsvtav1", ("aac",), options=AV1),
    Recipe("mp4", "mp4", "mpeg4", ("libmp3lame",), options=B_FRAMES),
    Recipe("mov", "mov", "libx264", ("pcm_s16le",), options=X264),
    Recipe("mkv", "matroska", "libx264", ("flac",), options=X264),
    Recipe("mkv", "matroska", "libx265", ("libopus",), options=X265),
    Recipe("mkv", "matroska", "mpeg2video", ("ac3",), options=B_FRAMES),
    Recipe("webm", "webm", "libvpx-vp9", ("libopus",), options=VP9),
    Recipe("webm", "webm", "libsvtav1", ("vorbis",), layout="stereo", options=AV1),
    Recipe("webm", "webm", "libvpx", ("vorbis",), layout="stereo", options={"deadline": "realtime", "cpu-used": "8"}),
    Recipe("avi", "avi", "mpeg4", ("libmp3lame",), options=B_FRAMES),
    Recipe("avi", "avi", "mjpeg", ("pcm_s16le",), rate=8000),
    Recipe("mpg", "mpeg", "mpeg1video", ("mp2",), options=B_FRAMES),
    Recipe("mpeg", "vob", "mpeg2video", ("mp2",), options=B_FRAMES),
    Recipe("ts", "mpegts", "libx264", ("aac",), options=X264),
    Recipe("ts", "mpegts", "mpeg2video", ("mp2",), options=B_FRAMES),
    Recipe("ts", "mpegts", "libx265", ("ac3",), options=X265),
    Recipe("flv", "flv", "flv", ("libmp3lame",), rate=44_100, options={"g": "12", "b": "1000000"}),
    Recipe("flv", "flv", "libx264", ("aac",), options=X264),
)
SOUNDS = (
    Recipe("wav", "wav", None, ("pcm_s16le",), rate=8000),
    Recipe("wav", "wav", None, ("pcm_mulaw",), rate=8000),
    Recipe("wav", "wav", None, ("pcm_s24le",)),
    Recipe("flac", "flac", None, ("flac",)),
    Recipe("mp3", "mp3", None, ("libmp3lame",), rate=44_100),
    Recipe("m4a", "ipod", None, ("aac",)),
    Recipe("m4a", "ipod", None, ("alac",)),
    Recipe("aac", "adts", None, ("aac",)),
    Recipe("ogg", "ogg", None, ("vorbis",), layout="stereo"),
    Recipe("ogg", "ogg", None, ("flac",)),
    Recipe("opus", "opus", None, ("libopus",)),
)
PHOTOS = ("jpg", "jpeg", "png", "bmp", "webp", "pgm", "tif")


def picture(number: int) -> NDArray[np.uint8]:
    """Picture ``number``, 0 to 255: (96, 128, 3) uint8 RGB; its bits are a row of light and dark blocks."""
    whole = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    for top, left, colour in _CORNERS:
        whole[top : top + 32, left : left + 32] = colour
    for bit in range(8):
        whole[32:64, 16 * bit : 16 * bit + 16] = 230 if number >> bit & 1 else 20
    return whole


def number_of(shown: NDArray[np.uint8]) -> int:
    """Which picture a decoded one is, whatever its size."""
    height, width = shown.shape[:2]
    row = shown[height * 40 // 96 : height * 56 // 96].mean(axis=(0, 2))
    return sum(
        1 << bit for bit in range(8) if row[width * (16 * bit + 5) // 128 : width * (16 * bit + 11) // 128].mean() > 125
    )


def is_upright(shown: NDArray[np.uint8]) -> bool:
    """Whether the corners of a decoded picture are where they belong."""
    high, wide = shown.shape[0] / HEIGHT, shown.shape[1] / WIDTH
    found = []
    for top, left, _ in _CORNERS:
        rows = slice(int((top + 10) * high), int((top + 22) * high))
        columns = slice(int((left + 10) * wide), int((left + 22) * wide))
        found.append(int(shown[rows, columns].mean((0, 1)).argmax()))
    return found == [0, 1, 2]


def sound(rate: int, seconds: float = SECONDS) -> NDArray[np.float32]:
    """(samples,) float32: the tone, and the clicks that fall into it."""
    clock = np.arange(round(seconds * rate)) / rate
    whole = TONE_LEVEL * np.sin(2 * np.pi * 300 * clock)
    for begin in CLICKS:
        there = (clock >= begin) & (clock < begin + CLICK_SECONDS)
        whole[there] = 0.8 * np.sign(np.sin(2 * np.pi * 1000 * (clock[there] - begin) + 1e-3))
    return whole.astype(np.float32)


def clicks_in(wave: NDArray[np.float32], rate: int = 16_000) -> list[float]:
    """Seconds at which a sound's clicks begin."""
    loud = np.flatnonzero(np.abs(wave) > 0.35) / rate
    return [float(time) for place, time in enumerate(loud) if place == 0 or time - loud[place - 1] > 0.2]


def level_of(wave: NDArray[np.float32], rate: int = 16_000) -> float:
    """Amplitude of the tone between the clicks."""
    return float(np.sqrt(2 * np.mean(wave[round(1.5 * rate) : round(2.2 * rate)].astype(np.float64) ** 2)))


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """Take back what an encoder does to the process when root encodes AV1: it makes its thread a real-time one.

    Every process that is started afterwards would be one too, and starve all others on the machine.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), policy, parameters)


def write(
    path: Path,
    recipe: Recipe,
    *,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    waves: Sequence[NDArray[np.float32]] | None = None,
    dispositions: Sequence[int] = (),
    clock: int = 1000,
) -> Path:
    """Make the medium.

    Args:
        path: file to write.
        recipe: how.
        times: seconds at which the pictures are shown, in the container's own time; default at 25 a second from 0.
            The sound begins with the first.
        rotation: degrees that a player is to turn the pictures counter-clockwise; they are stored turned the other
            way.
        waves: the sounds, (channels, samples) or (samples,) float32; default the known one for each stream.
        dispositions: FFmpeg's flags of the streams of sound.
        clock: ticks per second of the picture encoder where ``times`` are given.
    """
    with (
        _scheduled_as_before(),
        av.open(str(path), "w", format=recipe.container, options=dict(recipe.container_options)) as container,
    ):
        pictures = None
        if recipe.pictures:
            pictures = _picture_stream(container, recipe, rotation, clock if times is not None else None)
        streams = [
            container.add_stream(name, rate=recipe.rate, layout=recipe.layout, options={"strict": "experimental"})
            for name in recipe.sounds
        ]
        for stream, flag in zip(streams, dispositions, strict=False):
            stream.disposition = av.stream.Disposition(flag)
        begin = times[0] if times else 0.0
        blocks = [_blocks(wave, recipe, begin) for wave in waves or [sound(recipe.rate)] * len(streams)]
        shown = [k / RATE for k in range(COUNT)] if times is None else times
        for number, time in enumerate(shown if pictures else [SECONDS]):
            if pictures:
                stored = np.ascontiguousarray(np.rot90(picture(number % 256), -rotation // 90))
                frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
                if times is None:
                    frame.pts, frame.time_base = number, Fraction(1, RATE)
                else:
                    frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
                container.mux(pictures.encode(frame))
            for stream, pending in zip(streams, blocks, strict=True):
                while pending and float(pending[0].pts * pending[0].time_base) <= time:
                    container.mux(stream.encode(pending.pop(0)))
        if pictures:
            container.mux(pictures.encode(None))
        for stream, pending in zip(streams, blocks, strict=True):
            for block in pending:
                container.mux(stream.encode(block))
            container.mux(stream.encode(None))
    return path


def _picture_stream(container, recipe: Recipe, rotation: int, clock: int | None) -> av.VideoStream:
    stream = container.add_stream(recipe.pictures, rate=RATE, options=dict(recipe.options))
    stream.height, stream.width = picture(0).shape[:2] if rotation % 180 == 0 else picture(0).shape[1::-1]
    stream.pix_fmt = "yuvj420p" if recipe.pictures == "mjpeg" else "yuv420p"
    if clock is not None:
        stream.codec_context.time_base = Fraction(1, clock)
    if rotation:
        stream.set_display_rotation(rotation)
    return stream


def _blocks(wave: NDArray[np.float32], recipe: Recipe, begin: float) -> list[av.AudioFrame]:
    """A sound in blocks of 20 ms; a single row is heard on all channels."""
    channels = av.AudioLayout(recipe.layout).nb_channels
    whole = np.broadcast_to(wave, (channels, wave.shape[-1]))
    length, blocks = recipe.rate // 50, []
    for start in range(0, whole.shape[1], length):
        block = np.ascontiguousarray(whole[:, start : start + length].T.reshape(1, -1), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=recipe.layout)
        frame.sample_rate = recipe.rate
        frame.pts, frame.time_base = start + round(begin * recipe.rate), Fraction(1, recipe.rate)
        blocks.append(frame)
    return blocks


def write_photo(path: Path, orientation: int = 1) -> Path:
    """Picture 77 as a photo of the format that its extension says, turned back by its EXIF note."""
    image = Image.fromarray(picture(77))
    if path.suffix == ".pgm":
        image = image.convert("L")
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation in back:
        image = image.transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    form = _FORMATS.get(path.suffix[1:], path.suffix[1:])
    image.save(path, format=form, **({"exif": exif} if orientation != 1 else {}))
    return path
