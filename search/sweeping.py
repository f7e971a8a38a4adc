"""Sweeps: what is known of files that are gone goes too, unless another file has the same content.

The order of writes: rows → record of the tracks, the medium and its files → evidence without a record. Interrupted,
it is done again by the next sweep; rows that are missing meanwhile are written again by the next mending.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ingest.ledger import Finding, Ledger
from search.announcements import Announcements
from search.answers import SweepAnswer


class NothingThere(ValueError):
    """None of the files recorded below a folder is there: more likely a disk is missing than all of them."""


RemoveRows = Callable[[Sequence[Finding]], int]
"""Removes the rows of findings that nobody is enrolled with; the number removed."""


def sweep(ledger: Ledger, announcements: Announcements, remove_rows: RemoveRows, places: Sequence[Path]) -> SweepAnswer:
    """Remove what is known of files that are gone.

    Args:
        ledger: of the media.
        announcements: by which evidence is removed.
        remove_rows: see :data:`RemoveRows`.
        places: files and folders; what is recorded below them is looked for.

    Raises:
        NothingThere: none of the files recorded below a folder is there; nothing was removed.
    """
    gone: dict[str, str | None] = {}
    for place in places:
        recorded = ledger.files_below(place)
        missing = {path: media for path, media in recorded.items() if not os.path.lexists(path)}
        if missing and len(missing) == len(recorded) and str(place) not in recorded:
            raise NothingThere(
                f"{place}: none of the {len(recorded)} files that were read below it is there. Is the disk missing? "
                "Name the files themselves to sweep them all"
            )
        gone |= missing
    orphans = [media for media in {media for media in gone.values() if media} if not ledger.held_elsewhere(media, gone)]
    rows = evidence = 0
    for media in sorted(orphans):
        rows_of_it, pieces = _remove(ledger, announcements, remove_rows, media, _of(gone, media))
        rows, evidence = rows + rows_of_it, evidence + pieces
    ledger.remove_files([path for path, media in gone.items() if media not in orphans], None)
    return SweepAnswer(len(gone), len(orphans), rows, evidence)


def _remove(
    ledger: Ledger, announcements: Announcements, remove_rows: RemoveRows, media: str, paths: Collection[str]
) -> tuple[int, int]:
    """Remove one medium; the rows and pieces of evidence that went."""
    findings = ledger.findings(media)
    rows = remove_rows(findings)
    ledger.remove_files(paths, media)
    return rows, announcements.discard({finding.evidence for finding in findings})


def _of(gone: dict[str, str | None], media: str) -> list[str]:
    return [path for path, held in gone.items() if held == media]
