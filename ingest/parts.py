"""Where the pieces of films wait for each other: a folder that all workers see, a file for each piece.

They are looks at people, like the evidence, and go as soon as their film is in. What a job leaves behind that was
cancelled goes after some days.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ingest.shards import Heard, PartError, Seen, read_part, write_part
from ingest.track import MediaId

KEPT_SECONDS = 3 * 24 * 3600.0
"""For which pieces without news are kept."""

Kind = TypeVar("Kind", Seen, Heard)


@dataclass(frozen=True)
class Place(Generic[Kind]):
    """Where one piece is, or will be.

    Args:
        path: of its file.
        stamp: names the work.
        kind: of what it gives.
    """

    path: Path
    stamp: str
    kind: type[Kind]

    def exists(self) -> bool:
        """Whether the piece is there, whole."""
        try:
            self.read()
        except PartError:
            return False
        return True

    def read(self) -> Kind:
        """The piece. Raises PartError."""
        return read_part(self.path, self.kind, self.stamp)

    def write(self, part: Kind) -> None:
        """Put the piece there. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_part(self.path, part, self.stamp)


class Parts:
    """The pieces of all films that are being read.

    Args:
        folder: of their folders; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sound(self, media: MediaId, settings: str) -> Place[Heard]:
        """Where the sound of a film is, read in the way of some settings."""
        return Place(self._of(media, settings) / "sound", f"{media}/{settings}/sound", Heard)

    def pictures(self, media: MediaId, settings: str, number: int) -> Place[Seen]:
        """Where one shard of its pictures is."""
        return Place(self._of(media, settings) / f"{number:05}", f"{media}/{settings}/{number}", Seen)

    def remove(self, media: MediaId, settings: str) -> None:
        """Remove all pieces of a film."""
        shutil.rmtree(self._of(media, settings), ignore_errors=True)

    def remove_stale(self, age: float = KEPT_SECONDS) -> int:
        """Remove pieces without news for some seconds; the number of films they were of."""
        removed = 0
        for folder in self._folder.glob("*/"):
            with suppress(OSError):
                newest = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
                if time.time() - newest > age:
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    def _of(self, media: MediaId, settings: str) -> Path:
        return self._folder / hashlib.sha256(f"{media}/{settings}".encode()).hexdigest()
