"""Where a corpus lies, as whoever asks for it says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from training.corpora.manifest import CorpusError

MOST_MISSING = 0.05
"""Share of what lists name that may be absent, unless somebody allows more."""


@dataclass(frozen=True)
class Source:
    """Where a corpus lies.

    Args:
        root: its folder, or the file of a CSV manifest.
        faces: folder of its faces where they lie elsewhere, such as VGGFace stills.
        lists: folder of the published lists; None: they lie in ``root``.
        test: identities of protocols that a model will be tested on, beside the corpus's own test people.
        most_missing: share of the listed files, and of the people, that may be absent, 0 to 1.
        least_people: that a split must have.

    Raises:
        CorpusError: a folder is not there, or the share is none.
    """

    root: Path
    faces: Path | None = None
    lists: Path | None = None
    test: Collection[str] = frozenset()
    most_missing: float = MOST_MISSING
    least_people: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.most_missing <= 1:
            raise CorpusError(f"the share that may be absent is 0 to 1, got {self.most_missing}")
        if not self.root.exists():
            raise CorpusError(f"{self.root} is not there: name the folder of the corpus")
        for folder in (self.faces, self.lists):
            if folder is not None and not folder.is_dir():
                raise CorpusError(f"{folder} is no folder: name the one that holds the faces, or the lists")

    @property
    def lists_folder(self) -> Path:
        """Folder of the published lists."""
        return self.lists or self.root
