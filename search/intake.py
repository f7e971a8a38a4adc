"""Reads files that may change, vanish or be out of reach while they are read: what was read is what the hash says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ingest.flow import Recognition
from ingest.jobs import FileReport, FileState
from ingest.ledger import Ledger, MediaRecord
from ingest.media import MediaError
from ingest.track import Extraction, MediaId, media_id

# Within this time of its last change a file can change again and show the same times: clocks of disks are coarse.
_COARSE_SECONDS = 2.0


def content_hash(path: Path) -> MediaId:
    """The hash of a file's content. Raises MediaError that says what is wrong and what to do."""
    try:
        return media_id(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_steadily(path: Path, extract: Callable[[Path], Extraction]) -> Extraction:
    """Extract a file, and see that its content stayed what its hash says.

    Raises:
        MediaError: it cannot be read, or it changed or vanished meanwhile.
    """
    try:
        before, seen = _signature(path), time.time()
        extraction = extract(path)
        unchanged = _signature(path) == before and seen - before[-1] / 1e9 > _COARSE_SECONDS
    except OSError as error:
        raise _unreadable(path, error) from error
    if not unchanged and content_hash(path) != extraction.media:
        raise MediaError(path, "changed while it was read: try it again when it is written to its end")
    return extraction


class Recogniser:
    """Knows which contents are in, without any network.

    Args:
        ledger: what was read.
        settings: digest of how files are read now: what was read in another way is to be read again.
    """

    def __init__(self, ledger: Ledger, settings: str) -> None:
        self._ledger = ledger
        self.settings = settings

    def recognise(self, path: Path, archive: str) -> Recognition:
        """Whether the content of a file is in, wherever it lay before; it costs a hash."""
        try:
            media = content_hash(path)
        except MediaError as error:
            return Recognition(None, self.refuse(path, None, archive, error))
        return Recognition(media, self.known(path, media, archive))

    def known(self, path: Path, media: MediaId, archive: str) -> FileReport | None:
        """The same for a content whose hash is known."""
        record = self._ledger.medium(media)
        if record is None or record.state != "done" or record.settings != self.settings:
            return None
        self._ledger.record_file(path, media, archive)
        return report_of(path, "unchanged", record)

    def refuse(self, path: Path, media: MediaId | None, archive: str, error: MediaError) -> FileReport:
        """Record that a file cannot be used, and report it."""
        self._ledger.record_file(path, media, archive, reason=error.reason)
        return replace(FileReport.failed(path, error.reason), media=media)


def report_of(path: Path, state: FileState, record: MediaRecord) -> FileReport:
    """The report of a file whose medium is in."""
    return FileReport(
        path=str(path), state=state, media=record.id, faces=record.faces, voices=record.voices,
        seconds_of_media=record.seconds, reason=None, warnings=record.warnings,
    )  # fmt: skip


def _signature(path: Path) -> tuple[int, ...]:
    """What the file system says of a file: other numbers after every change, the last one the moment of it in ns."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> MediaError:
    if isinstance(error, FileNotFoundError):
        return MediaError(path, "cannot be read: there is no such file (any more): name it where it is now")
    advice = "give this user permission to read it" if isinstance(error, PermissionError) else "check the disk"
    return MediaError(path, f"cannot be read: {error.strerror or error}: {advice}")
