"""Face crops and speech turns by content hash, in a folder.

An id is the SHA-256 of what the sample *is* (pixels and landmarks, or 16-bit sound), not of its file,
so that another version of the PNG or FLAC encoder changes no id. Encoding always reads from here,
the first time too: a new model re-encodes without the films, and the old vectors come out again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from encoders.face import FaceCrop
from ingest.media import MediaError, read_flac, write_flac
from ingest.samples import stored_face, stored_voice

UNFINISHED_SECONDS = 3600.0
_ID = re.compile(r"^[0-9a-f]{64}$")


class EvidenceMissing(LookupError):
    """No evidence of that id is stored, or its file cannot be read."""


class Evidence:
    """A folder of evidence, two levels deep by the first two digits of the id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_face(self, crop: FaceCrop) -> str:
        """Store a face crop as PNG with its landmarks inside; gives its id."""
        landmarks = stored_face(crop).landmarks
        identity = hashlib.sha256(b"face\n")
        identity.update(np.array(crop.pixels.shape, dtype="<i4").tobytes())
        identity.update(crop.pixels.tobytes())
        identity.update(landmarks.astype("<f4").tobytes())
        path = self._path(identity.hexdigest(), "png")
        if not _renewed(path):
            text = PngImagePlugin.PngInfo()
            text.add_text("landmarks", json.dumps([[float(x), float(y)] for x, y in landmarks]))
            with _arriving(path) as unfinished:
                Image.fromarray(crop.pixels).save(unfinished, format="PNG", pnginfo=text)
        return identity.hexdigest()

    def put_voice(self, waveform: NDArray[np.float32]) -> str:
        """Store a turn, (samples,) float32 at 16 kHz, as FLAC of 16 bits; gives its id."""
        sound = np.round(stored_voice(waveform) * 32768.0).astype("<i2")
        identity = hashlib.sha256(b"voice\n" + sound.tobytes()).hexdigest()
        path = self._path(identity, "flac")
        if not _renewed(path):
            with _arriving(path) as unfinished:
                write_flac(unfinished, stored_voice(waveform))
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
            for ending in ("png", "flac"):
                path = self._path(identity, ending)
                if path.is_file():
                    return path
        raise EvidenceMissing(f"no evidence {identity!r} is stored")

    def delete(self, identity: str) -> bool:
        """Remove a piece of evidence; False if there was none."""
        try:
            path = self.file(identity)
        except EvidenceMissing:
            return False
        # overwritten first: an unlinked file's blocks can outlive it
        with path.open("r+b") as stream:
            stream.write(b"\0" * path.stat().st_size)
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()
        return True

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


def _renewed(path: Path) -> bool:
    """Whether a file is there; it then counts as young, since a record of it is about to be written."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


class _arriving:  # noqa: N801 - used as a function in a with statement
    """A file that appears under its name only when it is complete and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._unfinished

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None:
            self._unfinished.unlink(missing_ok=True)
            return
        with self._unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        self._unfinished.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too must outlive a power cut: a record will point at it
        finally:
            os.close(folder)
