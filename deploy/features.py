"""``visavox features``: which corpus, which encoders and which folder an extraction of frozen features means."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.models import find_folder
from deploy.reading import FACE_DETECTOR
from deploy.settings import Settings
from deploy.wiring import processors
from encoders.encoder import packaged_encoders
from encoders.folder import read_description
from encoders.space import Modality
from training.corpora import Manifest, NobodyForSplit, Source, Split, read_corpus
from training.extraction import Extracted, Order, extract
from training.features import Features

FEATURES = "features"
ALL = "all"
SPLITS: dict[str, tuple[Split, ...]] = {one.name.lower(): (one,) for one in Split} | {ALL: tuple(Split)}

Told = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, how much there is, and a note for people."""


@dataclass(frozen=True)
class FeaturesOrder:
    """What somebody asked for.

    Args:
        corpus: name of a layout.
        source: where it lies.
        split: of :data:`SPLITS`.
        encoders: folders, or names of those in the home; none: the packaged identity encoders.
        output: folder of the features; None: one in the home, named by all of these.
        workers: processes; 0: this one; None: as many as processors.
    """

    corpus: str
    source: Source
    split: str
    encoders: Sequence[str] = ()
    output: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"a split is {', '.join(SPLITS)}, got {self.split!r}")


def extract_features(settings: Settings, order: FeaturesOrder, told: Told) -> dict[str, Any]:
    """Extract what is not there yet, and say what there is: the JSON of the command.

    Raises:
        CorpusError, FeaturesError, PreparationError, EncoderError, OSError: see there.
    """
    began = time.monotonic()
    encoders = [find_folder(name, settings.home) for name in order.encoders] or sorted(packaged_encoders().values())
    told("reading the corpus", 0, 1, "")
    manifests = _manifests(order)
    told("reading the corpus", 1, 1, "")
    folder = order.output or settings.home / FEATURES / _name(order, encoders)
    wanted = Order(manifests[0].name, manifests, encoders, folder, order.split, FACE_DETECTOR, settings.device)
    workers = processors() if order.workers is None else order.workers
    extracted = extract(wanted, workers=workers, on_progress=_Pace(told))
    return _document(order, manifests, folder, extracted) | {"seconds": round(time.monotonic() - began, 3)}


def _manifests(order: FeaturesOrder) -> list[Manifest]:
    """One per split; of all splits those that have somebody."""
    manifests, nobody = [], []
    for split in SPLITS[order.split]:
        try:
            manifests.append(read_corpus(order.corpus, order.source, split))
        except NobodyForSplit as error:
            nobody.append(error)
    if not manifests:
        raise nobody[0]
    return manifests


def _name(order: FeaturesOrder, encoders: Sequence[Path]) -> str:
    """A folder's name that another corpus, split or encoder does not have."""
    decides = [str(order.source.root.absolute()), str(order.source.faces and order.source.faces.absolute())]
    decides += [read_description(folder).digest() for folder in encoders]
    digest = hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]
    return f"{re.sub('[^a-z0-9]+', '-', order.corpus)}-{order.split}-{digest}"


def _document(
    order: FeaturesOrder, manifests: Sequence[Manifest], folder: Path, extracted: Extracted
) -> dict[str, Any]:
    rows = {modality: extracted.rows.get(modality, 0) for modality in Modality}
    notes = [note for manifest in manifests for note in manifest.notes]
    if extracted.shared:
        notes.append(
            f"{len(extracted.shared)} samples have the very content of another person's, such as {extracted.shared[0]}"
        )
    spaces = {
        str(modality): {"name": space.name, "dimension": space.dimension, "digest": space.digest}
        for modality, space in extracted.spaces.items()
    }
    return {
        "features": str(folder),
        "corpus": manifests[0].name,
        "split": order.split,
        "spaces": spaces,
        "people": len(Features.open(folder).identities),
        "faces": rows[Modality.FACE],
        "voices": rows[Modality.VOICE],
        "unchanged": extracted.unchanged,
        "duplicates": extracted.duplicates,
        "unusable": [{"path": path, "reason": reason} for path, reason in extracted.unusable],
        "missing": [sentence for manifest in manifests for sentence in manifest.missing],
        "notes": notes,
    }


class _Pace:
    """Tells of progress with its rate: see :data:`training.extraction.OnProgress`."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._modality: Modality | None = None
        self._began, self._first = 0.0, 0

    def __call__(self, modality: Modality, done: int, total: int, unusable: int) -> None:
        now = time.monotonic()
        if modality is not self._modality:
            self._modality, self._began, self._first = modality, now, done
        notes = [f"{(done - self._first) / max(now - self._began, 1e-3):.1f}/s"] if done > self._first else []
        notes += [f"{unusable} unusable"] if unusable else []
        self._told(f"encoding {modality}s", done, total, ", ".join(notes))
