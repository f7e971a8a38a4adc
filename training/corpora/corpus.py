"""The table of layouts: a corpus's name gives its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.corpora import csv_manifest, mav_celeb, person_folders, voxceleb1
from training.corpora.manifest import CorpusError, Manifest, Split
from training.corpora.protocol_folder import read_manifest
from training.corpora.source import MOST_MISSING, Source

__all__ = ["CORPORA", "MOST_MISSING", "Layout", "Source", "layouts_told", "read_corpus"]


@dataclass(frozen=True)
class Layout:
    """One way in which corpora lie on disk.

    Args:
        read: gives the manifest of a split.
        told: a sentence part for people: what the root holds.
    """

    read: Callable[[Source, Split], Manifest]
    told: str


def _read_protocol_folder(source: Source, split: Split) -> Manifest:
    """See :func:`read_manifest`; lists that lie apart have their media in the root."""
    media = None if source.lists is None else source.root
    return read_manifest(source.lists_folder, split, media=media, test=source.test, least=source.least_people)


CORPORA = {
    "voxceleb1": Layout(
        voxceleb1.read_p,
        "VoxCeleb1 as distributed, P split (901/100/250): wav/idNNNNN/<video>/NNNNN.wav, faces <Name>/1.6/<video>/…",
    ),
    "voxceleb1-d": Layout(
        voxceleb1.read_d, "the same with the D split (924/112/189); --faces names the folder of VGGFace stills"
    ),
    "mav-celeb": Layout(
        mav_celeb.read, "voices/idNNNN/<language>/<video>/*.wav and faces/idNNNN/<language>/<video>/*.jpg"
    ),
    "folder": Layout(person_folders.read, "one folder per person, perhaps below train/, validation/ and test/"),
    "csv": Layout(csv_manifest.read, "manifest.csv: path, person, modality, split, and perhaps more"),
    "protocol": Layout(_read_protocol_folder, "Splits/identity_splits.txt, meta.csv and media/<person>/…"),
}
"""What ``--corpus`` may name."""


def layouts_told() -> str:
    """All layouts in a few lines."""
    return "; ".join(f"{name} ({layout.told})" for name, layout in CORPORA.items())


def read_corpus(name: str, source: Source, split: Split) -> Manifest:
    """The samples of one split of a corpus.

    Args:
        name: of a row of :data:`CORPORA`.
        source: where it lies.
        split: whose samples.

    Raises:
        CorpusError: there is no such layout, or the corpus is not as its layout says; the message names the file,
            and the line where it is about one.
    """
    if name not in CORPORA:
        raise CorpusError(f"there is no corpus {name!r}: there are {', '.join(CORPORA)}")
    if source.root.is_file() and name != "csv":
        raise CorpusError(f"{source.root} is a file, and the root of {name} is a folder")
    return CORPORA[name].read(source, split)
