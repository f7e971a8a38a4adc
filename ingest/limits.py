"""What a file may weigh and of which formats it may be, before and while it is decoded.

Two makes: generous ones for files that the operator names, strict ones for files that anybody sends. Neither
knows a playlist, a series of pictures or an address: one file is read, and no file can name another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CONTAINERS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "mxf", "h264", "hevc",
    "m4v", "mjpeg", "gif", "ivf", "wav", "w64", "flac", "mp3", "aac", "ogg", "aiff", "au", "caf", "amr", "ac3",
    "eac3",
)  # fmt: skip
"""FFmpeg's names of the containers that are read. None of them opens anything but itself."""
PHOTO_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""Pillow's names of the formats of photos that are read."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz. Sound at a few samples a second is a tiny file that would become gigabytes."""

# What cameras, phones, browsers and editors write. Hundreds of decoders of old games and rare cards are left out:
# nobody looks for holes in them but attackers.
_UPLOADED_CONTAINERS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "wav", "flac", "mp3",
    "aac", "ogg", "aiff", "caf", "amr",
)  # fmt: skip
_UPLOADED_DECODERS = (
    "h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "theora", "mpeg1video", "mpeg2video",
    "mpeg4", "msmpeg4", "msmpeg4v2", "msmpeg4v1", "h263", "flv", "wmv1", "wmv2", "wmv3", "vc1", "mjpeg", "prores",
    "dvvideo", "ffv1", "rawvideo", "aac", "aac_latm", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float",
    "opus", "libopus", "vorbis", "flac", "alac", "ac3", "eac3", "wmav1", "wmav2", "wmapro", "amrnb", "amrwb",
    "libopencore_amrnb", "libopencore_amrwb", "speex", "libspeex", "gsm", "gsm_ms", "adpcm_ms", "adpcm_ima_wav",
    "adpcm_ima_qt", "pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be",
    "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_dvd", "pcm_bluray",
)  # fmt: skip


@dataclass(frozen=True)
class MediaLimits:
    """The most that is read of one file; what exceeds it is refused with a reason.

    Args:
        picture_pixels: of a photo.
        frame_pixels: of one picture of a film.
        seconds: that a film or sound lasts, by its header and by what decodes.
        frames_per_second: pictures of a film; beyond it the clock of the film stands still.
        streams: of all kinds in one container.
        containers: FFmpeg's names of containers.
        decoders: FFmpeg's names of decoders; None for every one that it has.
        photo_formats: Pillow's names of formats.
        probe_bytes: read at most to find out what a container holds.
    """

    picture_pixels: int = 8192 * 8192
    frame_pixels: int = 8192 * 8192
    seconds: float = 6 * 3600.0
    frames_per_second: float = 1000.0
    streams: int = 200
    containers: tuple[str, ...] = CONTAINERS
    decoders: tuple[str, ...] | None = None
    photo_formats: tuple[str, ...] = PHOTO_FORMATS
    probe_bytes: int = 5_000_000

    def __post_init__(self) -> None:
        if not min(self.picture_pixels, self.frame_pixels, self.seconds, self.frames_per_second, self.streams) > 0:
            raise ValueError(f"limits of media must be above 0, got {self}")
        if unknown := set(self.containers) - set(CONTAINERS):
            raise ValueError(f"containers {sorted(unknown)} are never read: choose from {', '.join(CONTAINERS)}")
        if unknown := set(self.photo_formats) - set(PHOTO_FORMATS):
            raise ValueError(f"photos {sorted(unknown)} are never read: choose from {', '.join(PHOTO_FORMATS)}")

    def for_containers(self, descriptor: int) -> dict[str, str]:
        """Options for FFmpeg that leave it one open file, and of its formats those that are read.

        Args:
            descriptor: of the open file; FFmpeg's address of it is ``fd:``, and it has no other protocol.
        """
        decoders = {} if self.decoders is None else {"codec_whitelist": ",".join(self.decoders)}
        return decoders | {
            "fd": str(descriptor),
            "protocol_whitelist": "fd",
            "format_whitelist": ",".join(self.containers),
            "probesize": str(self.probe_bytes),
            "max_streams": str(self.streams + 1),
        }

    def for_decoders(self) -> dict[str, str]:
        """Options for FFmpeg's decoders: a film may grow in the middle."""
        return {"max_pixels": str(self.frame_pixels)}


TRUSTED = MediaLimits()
"""For files that the operator of an installation names."""
UPLOADS = MediaLimits(
    picture_pixels=8192 * 6144,  # 50 megapixels: the large sensors of phones
    frame_pixels=4096 * 2304,
    seconds=2 * 3600.0,
    frames_per_second=300.0,
    streams=32,
    containers=_UPLOADED_CONTAINERS,
    decoders=_UPLOADED_DECODERS,
)
"""For files that come over HTTP from anybody."""

_in_force = TRUSTED


def in_force() -> MediaLimits:
    """The limits to which this process holds the files that it reads."""
    return _in_force


@contextmanager
def reading_within(limits: MediaLimits) -> Iterator[None]:
    """Hold every file that this process reads meanwhile, in all its threads, to other limits.

    For the whole process, so that no way of reading can be forgotten: a process reads either files that are
    trusted or files that are not.
    """
    global _in_force
    before, _in_force = _in_force, limits
    try:
        yield
    finally:
        _in_force = before
