"""An archive as ingest leaves it, drawn in points: records and rows, and no film and no network to make them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from deploy.wiring import Installation
from encoders.space import Embedding, Modality
from ingest.ledger import Finding, MediaRecord, Pairing
from ingest.track import MediaId
from search.filling import key_of
from search.store import Row

FACE, VOICE = 128, 256
COMMON = 4  # numbers that a person's face and voice both show


def name_of(text: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw_archive(opened: Installation, archive: str, people: int, films: int = 2, *, judged: bool = True) -> None:
    """Portraits of people, each in as many films; a face and a voice of one have something in common."""
    shown = [(person, name_of(f"{archive} {person} {film}")) for person in range(people) for film in range(films)]
    found = [(one, person) for person, film in shown for one in draw_film(opened, archive, film, judged=judged)]
    write_rows(opened, found)


def draw_film(opened: Installation, archive: str, film: str, *, judged: bool = True) -> list[Finding]:
    """The records of a film in which one person is seen to speak two turns."""
    findings = [Finding(film, "face", name_of(f"{film} look {look}"), 0, 9000, 0, 0.9) for look in range(3)]
    turns = [Finding(film, "voice", name_of(f"{film} turn {at}"), at, at + 3000, 0, 1.0) for at in (0, 4000)]
    pairings = [Pairing(film, one.evidence, one.start_ms, one.end_ms, 0, 0.95, 0.05, 0.0) for one in turns]
    record = MediaRecord(film, "writing", "film", 9.0, 1, 2, opened.reading, ())
    ledger = opened.records.ledger
    ledger.begin(record, [*findings, *turns], pairings if judged else [])
    ledger.finish(film)
    ledger.record_file(Path(f"/films/{film}.mp4"), MediaId(film), archive)
    return [*findings, *turns]


def draw_enrolled(opened: Installation, name: str, person: int) -> None:
    """Somebody enrolled with three photos and three sounds; always under one id, as who is held out depends on it."""
    with patch("search.people.uuid", SimpleNamespace(uuid4=lambda: UUID(name_of(name)[:32]))):
        entered = opened.records.people.create(name)
    names = [(kind, name_of(f"{name} {kind} {at}")) for kind in ("face", "voice") for at in range(3)]
    found = [Finding(one, kind, one, -1, -1, 0, 1.0) for kind, one in names]
    opened.records.people.add(entered, found)
    write_rows(opened, [(one, person) for one in found], entered.id)


def write_rows(opened: Installation, found: Sequence[tuple[Finding, int]], name: str = "") -> None:
    """The rows of samples, each with whom it shows."""
    for modality in Modality:
        space = opened.encoders[f"{modality}_identity"].space
        rows = []
        for one, person in found:
            if one.modality == modality:
                embedding = Embedding.of(space, modality, drawn_point(person, modality, int(one.evidence[:8], 16)))
                span, key = (one.start_ms, one.end_ms), key_of(one, space)
                rows.append(Row(key, embedding, one.media, one.track, span, one.evidence, name, one.quality))
        opened.store.create(space)
        opened.store.upsert(space, rows)


def drawn_point(person: int, modality: Modality, noise: int) -> NDArray[np.float64]:
    """(dimension,) mostly the person's own, partly what face and voice both show, a little of the moment."""
    dimension = FACE if modality is Modality.FACE else VOICE
    common = np.random.default_rng([person, 1]).standard_normal(COMMON)
    own = np.random.default_rng([person, 2, dimension]).standard_normal(dimension)
    shows = np.random.default_rng([3, dimension]).standard_normal((COMMON, dimension))
    moment = np.random.default_rng([person, noise, 4, dimension]).standard_normal(dimension)
    return np.asarray(common @ shows + own + 0.1 * moment)
