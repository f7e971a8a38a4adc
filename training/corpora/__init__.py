"""Public corpora, and one's own archive, as one :class:`Manifest`: one file per layout, one table of them all."""

from training.corpora.corpus import CORPORA, MOST_MISSING, Source, layouts_told, read_corpus
from training.corpora.manifest import (
    CorpusError,
    Manifest,
    NobodyForSplit,
    Sample,
    Split,
    media_digest,
    of_fewer_people,
)
from training.corpora.protocol_folder import read_manifest

__all__ = [
    "CORPORA",
    "MOST_MISSING",
    "CorpusError",
    "Manifest",
    "NobodyForSplit",
    "Sample",
    "Source",
    "Split",
    "layouts_told",
    "media_digest",
    "of_fewer_people",
    "read_corpus",
    "read_manifest",
]
