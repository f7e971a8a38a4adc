"""What a file is, told from its bytes: refusals in words, and photos (Pillow)."""

from __future__ import annotations

import struct
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from ingest.limits import TRUSTED, in_force

MEDIA_EXTENSIONS = frozenset({
    "mp4", "mkv", "webm", "mov", "avi", "mpg", "mpeg", "ts", "flv",
    "wav", "flac", "mp3", "m4a", "aac", "ogg", "opus",
    "jpg", "jpeg", "png", "bmp", "webp", "pgm", "tif",
})  # fmt: skip
"""Extensions, without the dot, that make a file in a folder worth trying."""
PICTURE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "pgm", "tif", "tiff"})
# A stream that ends this much before its own header says was cut off. Seconds.
TRUNCATED_SECONDS = 0.75
# A clock may stand still this long before that counts as endless. Seconds.
CLOCK_SLACK_SECONDS = 5.0
HEAD_BYTES = 4096
# Each scan of a JPEG goes over the whole picture; encoders make a dozen, a hostile file hundreds of thousands.
MOST_SCANS = 100
# Sizes of the second header of a BMP: "BM" alone also begins many texts.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_FILM_OR_SOUND = (
    (0, b"OggS", "Ogg sound"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (0, b"fLaC", "FLAC sound"),
    (0, b"RIFF", "a WAV sound or AVI film"),
    (0, b"FLV", "a Flash film"),
    (0, b"ID3", "MP3 sound"),
    (0, b"\0\0\x01\xba", "an MPEG film"),
    (4, b"ftyp", "an MP4 or MOV film"),
)
_NOT_MEDIA = (
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
)
# Everything that Pillow's decoders are known to raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    AttributeError,
    struct.error,
    Image.DecompressionBombError,
    Warning,  # where the process treats Pillow's warnings as errors
)
# Pillow only warns of a bomb at first; as an error it ends the reading before anything is decoded.
Image.MAX_IMAGE_PIXELS = TRUSTED.picture_pixels
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Pillow's switch for truncated files is one for the whole process.
_TRUNCATED_SWITCH = threading.Lock()


class MediaError(Exception):
    """A file that cannot be read as film, sound or photo, or not at all.

    Args:
        path: the file.
        reason: what is wrong with it and what to do, a sentence for people.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Args:
        kind: ``film`` (moving pictures, with or without sound), ``sound`` or ``photo``.
        duration: seconds as the headers say, or where they do not, to the end of its last packet; 0 for a photo.
        width: of the pictures as shown (turned upright, square pixels), pixels; 0 without pictures.
        height: likewise.
        fps: pictures per second; 0 without moving pictures.
        has_sound: whether there is a sound stream.
        has_pictures: whether there are pictures.
    """

    kind: Literal["film", "sound", "photo"]
    duration: float
    width: int
    height: int
    fps: float
    has_sound: bool
    has_pictures: bool


@dataclass
class Problems:
    """What went wrong while a stream of a film or sound was decoded.

    Args:
        path: the file.
        cut_short: whether the file is shorter than it says.
        unread: sentences about streams that cannot be decoded at all.
        frames: number of frames that decoded.
        broken_packets: number of pieces that did not.
        cut_off: whether reading ended with an error.
        missing_pieces: number of jumps of the time stamps.
    """

    path: Path
    cut_short: bool
    unread: list[str] = field(default_factory=list)
    frames: int = 0
    broken_packets: int = 0
    cut_off: bool = False
    missing_pieces: int = 0

    def report(self, what: str, warnings: list[str], *, reached: float, expected: float) -> None:
        """Turn them into warnings; raises MediaError if nothing decoded.

        Args:
            what: ``pictures`` or ``sound``.
            warnings: sentences are added here.
            reached: second that decoding reached.
            expected: second that it should have reached, 0 if unknown.
        """
        if not self.frames:
            raise MediaError(self.path, f"has a header, but none of its {what} decodes: damaged, copy it again")
        warnings += self.unread
        if reached < expected - TRUNCATED_SECONDS:
            warnings.append(f"truncated: of {expected:.1f} s of {what} only {reached:.1f} s decode")
        elif self.cut_off:
            warnings.append(f"truncated: reading ends with an error after {reached:.1f} s of {what}")
        elif self.cut_short:
            warnings.append(f"truncated: the file is shorter than it says, {reached:.1f} s of {what} decode")
        elif self.broken_packets:
            warnings.append(f"damaged: {self.broken_packets} pieces of the {what} do not decode and were left out")
        if self.missing_pieces:
            warnings.append(f"the time stamps of the {what} jump in {self.missing_pieces} places")


def refuse_huge(path: Path, width: int, height: int, most: int) -> None:
    """Raise MediaError for pictures of more pixels than are read."""
    if width * height > most:
        raise MediaError(path, f"has pictures of {width} x {height} pixels, and at most {most} are read: scale it down")


def refuse_long(path: Path, seconds: float) -> None:
    """Raise MediaError for a film or sound that lasts longer than is read, or no time that is a number."""
    most = in_force().seconds
    if not seconds <= most:
        raise MediaError(path, f"lasts {seconds / 3600:.1f} hours, and at most {most / 3600:.1f} are read: cut it")


def refuse_many(path: Path, streams: int) -> None:
    """Raise MediaError for a container of more streams than are looked at."""
    most = in_force().streams
    if streams > most:
        raise MediaError(path, f"holds more than {most} streams: convert it to one of pictures and one of sound")


def refuse_endless(path: Path, frames: int, seconds: float) -> None:
    """Raise MediaError for a film whose clock hardly moves while its pictures come and come.

    Args:
        path: the film.
        frames: number decoded so far.
        seconds: where its clock is by now.
    """
    rate = in_force().frames_per_second
    if frames > rate * (seconds + CLOCK_SLACK_SECONDS):
        raise MediaError(path, f"has {frames} pictures in {seconds:.1f} s, more than {rate:.0f} a second: convert it")


def read_head(path: Path) -> bytes:
    """The first 4096 bytes of a file that may be media.

    Raises:
        MediaError: missing, not a file, not allowed, empty, or nothing but zeros.
    """
    try:
        if path.is_dir():
            raise MediaError(path, "is a folder, not a file: name the files in it")
        if not path.exists():
            raise MediaError(path, "there is no such file: check the path")
        if not path.is_file():
            raise MediaError(path, "is not a regular file: copy its content to a file first")
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except PermissionError as error:
        raise MediaError(path, "may not be read: give this user permission to read it") from error
    except (OSError, ValueError) as error:
        raise MediaError(path, f"cannot be opened ({error}): check the disk and the path") from error
    if not head:
        raise MediaError(path, "is empty (0 bytes): copy it again from its source")
    if not head.strip(b"\0"):
        raise MediaError(path, "begins with nothing but zeros, as a broken download does: copy it again")
    return head


def is_photo(head: bytes) -> bool:
    """Whether a file that begins with these bytes claims to be a photo of a format that we read."""
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")):
        return True
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return True
    if head.startswith(b"BM"):
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and len(head) > 2


def describe(head: bytes) -> str:
    """What the bytes at the beginning of a file that is no medium look like, in words."""
    for magic, name in _NOT_MEDIA:
        if head.startswith(magic):
            return name
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "unknown data"
        text = head[: error.start].decode("utf-8")  # the head may end inside a character
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return "unknown data"
    return "a web page or XML" if text.lstrip().startswith("<") else "text"


def why_not_media(head: bytes) -> str:
    """Why a file that begins with these bytes is refused, a sentence for people."""
    for place, magic, name in _FILM_OR_SOUND:
        if head[place:].startswith(magic):
            return f"begins like {name}, but its header or index is damaged or missing: copy it again"
    looks = describe(head)
    if looks == "unknown data":
        return "is no film, sound or photo that is known, or its header is damaged: convert it or copy it again"
    return f"looks like {looks}, not like a film, sound or photo: convert it"


def is_cut_short(path: Path, head: bytes) -> bool:
    """Whether a WAV or AVI file is shorter than it says; other formats are judged by what decodes."""
    says = int.from_bytes(head[4:8], "little")
    unknown = (0, 0xFFFFFFFF)  # written as a stream
    return head.startswith(b"RIFF") and says not in unknown and path.stat().st_size < says


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as shown (EXIF orientation applied); raises MediaError."""
    try:
        with Image.open(path, formats=in_force().photo_formats) as image:
            # Pillow turns TIFF itself, and tells its size as shown
            turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = image.size
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    return (height, width) if turned else (width, height)


def read_photo(path: Path, warnings: list[str] | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, BMP, WebP, TIFF or PNM photo.

    Args:
        path: the file; its content decides, not its extension.
        warnings: if given, sentences about what was odd are added to it.

    Returns:
        (height, width, 3) uint8 RGB, turned as its EXIF orientation says, transparency on white.

    Raises:
        MediaError: not such a photo, more pixels than are read, or nothing of it decodes.
    """
    read_head(path)
    try:
        _refuse_many_scans(path)
        with Image.open(path, formats=in_force().photo_formats) as image:
            refuse_huge(path, image.width, image.height, in_force().picture_pixels)
            return _rgb(ImageOps.exif_transpose(image))
    except _DAMAGED as error:
        pixels = _read_truncated(path)
        if pixels is None:
            raise _unreadable(path, error) from error
    if warnings is not None:
        warnings.append("the photo is damaged or cut off: what decodes of it was used")
    return pixels


def _refuse_many_scans(path: Path) -> None:
    """Raise MediaError for a JPEG that would be decoded for hours."""
    with path.open("rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            return
        scans, last = 0, b""
        while block := stream.read(2**20):
            scans += (last + block).count(b"\xff\xda")  # inside a scan 255 is always followed by 0
            last = block[-1:]
    if scans > MOST_SCANS:
        raise MediaError(path, f"goes over its picture {scans} times, more than {MOST_SCANS}: save it again")


def _unreadable(path: Path, error: BaseException) -> MediaError:
    """The refusal of a photo that begins like one but cannot be decoded."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return MediaError(path, f"has more than {in_force().picture_pixels} pixels: scale it down")
    return MediaError(path, "begins like a photo, but nothing of it decodes: it is damaged, copy it again")


def _read_truncated(path: Path) -> NDArray[np.uint8] | None:
    """What decodes of a damaged photo, or None if that is nothing."""
    with _TRUNCATED_SWITCH:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with Image.open(path, formats=in_force().photo_formats) as image:
                if image.width * image.height > in_force().picture_pixels:
                    return None
                pixels = _rgb(image)
        except _DAMAGED:
            return None
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The decoder fills what is missing with one colour: only that colour means nothing decoded.
    return pixels if pixels.size and (pixels != pixels[-1, -1]).any() else None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any Pillow mode to (height, width, 3) uint8: 16 bits scaled to 8, transparency on white."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.size and grey.max() > 255 else 255.0 if image.mode != "F" or grey.max() > 1 else 1.0
        eight = np.clip(grey * (255.0 / top), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(eight[:, :, None], 3, axis=2))
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        image = Image.alpha_composite(white, seen)
    return np.array(image.convert("RGB"), dtype=np.uint8)
