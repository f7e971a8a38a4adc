"""Face crops and speech turns by content hash, in a folder.

An id is the SHA-256 of what the sample *is* (pixels and landmarks, or 16-bit sound), not of its file,
so that another version of the PNG or FLAC encoder changes no id. Encoding always reads from here,
the first time too: a new model re-encodes without the films, and the old vectors come out again.

A piece is there under its name whole and on disk, or not at all. While it is written or removed its bytes
lie beside it in a file whose name begins with ``.<id>.``, which :meth:`Evidence.delete` removes too; who knows
of ids that were written or removed by a process that was killed is :mod:`search.announcements`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from encoders.face import FaceCrop
from ingest.media import MediaError, read_flac, write_flac
from ingest.samples import stored_face, stored_voice

UNFINISHED_SECONDS = 3600.0
ENDINGS = ("png", "flac")
_ID = re.compile(r"[0-9a-f]{64}\Z")
_MAKE_ROOM = "make room there and do the same again, which goes on where this stopped"
_CHECK = "check that disk, and that this user may write there"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class EvidenceMissing(LookupError):
    """No evidence of that id is stored, or its file cannot be read."""


class Evidence:
    """A folder of evidence, two levels deep by the first two digits of the id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder

    def put_face(self, crop: FaceCrop) -> str:
        """Store a face crop as PNG with its landmarks inside; gives its id. OSError if it cannot be written."""
        identity = face_id(crop)
        path = self._path(identity, "png")
        if not _renewed(path):
            landmarks = [[float(x), float(y)] for x, y in stored_face(crop).landmarks]
            text = PngImagePlugin.PngInfo()
            text.add_text("landmarks", json.dumps(landmarks))
            picture = io.BytesIO()
            Image.fromarray(crop.pixels).save(picture, format="PNG", pnginfo=text)
            _write(path, picture.getvalue())
        return identity

    def put_voice(self, waveform: NDArray[np.float32]) -> str:
        """Store a turn, (samples,) float32 at 16 kHz, as FLAC of 16 bits; gives its id. OSError as above."""
        identity = voice_id(waveform)
        path = self._path(identity, "flac")
        if not _renewed(path):
            sound = io.BytesIO()  # by our own hands to the disk: FFmpeg does not tell when it is full
            write_flac(sound, stored_voice(waveform))
            _write(path, sound.getvalue())
        return identity

    def face(self, identity: str) -> FaceCrop:
        """Read a face crop back. Raises EvidenceMissing."""
        try:
            with Image.open(self._path(identity, "png"), formats=["PNG"]) as picture:
                landmarks = json.loads(picture.info["landmarks"])
                pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
        except (OSError, KeyError, ValueError) as error:
            raise EvidenceMissing(f"face evidence {identity} cannot be read: {error}") from error
        return FaceCrop(pixels, np.array(landmarks, dtype=np.float32))

    def voice(self, identity: str) -> NDArray[np.float32]:
        """Read a turn back: (samples,) float32 at 16 kHz. Raises EvidenceMissing."""
        try:
            return read_flac(self._path(identity, "flac"))
        except (OSError, MediaError) as error:
            raise EvidenceMissing(f"voice evidence {identity} cannot be read: {error}") from error

    def file(self, identity: str) -> Path:
        """The file of a piece of evidence, to show it. Raises EvidenceMissing."""
        if _ID.match(identity):
            for ending in ENDINGS:
                path = self._path(identity, ending)
                if path.is_file():
                    return path
        raise EvidenceMissing(f"no evidence {identity!r} is stored")

    def delete(self, identity: str) -> bool:
        """Remove a piece of evidence, and what of it was left half-written or half-removed; False if there was none.

        Must not run while the same piece is written: see :mod:`search.announcements`.
        """
        if not _ID.match(identity):
            return False
        folder = self._folder / identity[:2]
        there = [path for path in (self._path(identity, ending) for ending in ENDINGS) if path.is_file()]
        for path in there:
            # under its name a piece is whole or gone: half-overwritten it would be taken for the piece itself
            path.replace(path.with_name(f".{identity}.gone{path.suffix}"))
        left = list(folder.glob(f".{identity}.*"))
        for path in left:
            _overwrite(path)
            path.unlink(missing_ok=True)
        if left:
            _settle(folder)
        return bool(there)

    def sweep(self, known: Collection[str]) -> int:
        """Remove what no record knows, and unfinished files: what was left by a process that was killed.

        Evidence younger than an hour stays: its record may be about to be written.

        Returns:
            The number of files removed.
        """
        swept = 0
        for path in self._folder.rglob("*.*"):
            if path.stem not in known and time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def _path(self, identity: str, ending: str) -> Path:
        return self._folder / identity[:2] / f"{identity}.{ending}"


def face_id(crop: FaceCrop) -> str:
    """The id that a face crop has as evidence: of its pixels and landmarks, 64 hex digits."""
    identity = hashlib.sha256(b"face\n")
    identity.update(np.array(crop.pixels.shape, dtype="<i4").tobytes())
    identity.update(crop.pixels.tobytes())
    identity.update(stored_face(crop).landmarks.astype("<f4").tobytes())
    return identity.hexdigest()


def voice_id(waveform: NDArray[np.float32]) -> str:
    """The id that a turn, (samples,) float32 at 16 kHz, has as evidence: of its 16-bit sound, 64 hex digits."""
    sound = np.round(stored_voice(waveform) * 32768.0).astype("<i2")
    return hashlib.sha256(b"voice\n" + sound.tobytes()).hexdigest()


def _renewed(path: Path) -> bool:
    """Whether a file is there; it then counts as young, since a record of it is about to be written."""
    with _explained(path):
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True


def _write(path: Path, content: bytes) -> None:
    """Make a file that appears under its name only when it is complete and on disk; OSError names it."""
    with _explained(path):
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            _settle(path.parent.parent)
        unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
        try:
            with unfinished.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _settle(path.parent)


def _overwrite(path: Path) -> None:
    """Write zeros over a file: an unlinked file's blocks can outlive it."""
    try:
        with path.open("r+b") as stream:
            stream.write(b"\0" * path.stat().st_size)
            stream.flush()
            os.fsync(stream.fileno())
    except FileNotFoundError:
        return  # somebody else is removing it too
    except OSError as error:
        if error.errno not in _FULL:  # some disks write elsewhere, and have no room for zeros
            raise


def _settle(folder: Path) -> None:
    """Put the names in a folder on disk: they too must outlive a power cut, since a record will point at them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a full or read-only disk what to do, and of any failure which file it was."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _MAKE_ROOM if error.errno in _FULL else _CHECK
        raise OSError(error.errno, f"{reason}: {advice}", str(path)) from error
