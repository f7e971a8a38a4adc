"""Rows as the index keeps them: flat records of plain values, and filters as its expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from encoders.space import Embedding, Modality, Space
from search.store import Entry, Filter, Hit, Row, StoreError

FIELDS = [
    "key",
    "vector",
    "modality",
    "media",
    "person",
    "evidence",
    "track",
    "start_ms",
    "end_ms",
    "quality",
]
ENTRY_FIELDS = [name for name in FIELDS if name != "vector"]
LONGEST_ID = 64
LONGEST_EVIDENCE = 512

_ID = re.compile(rf"[0-9A-Za-z_.:-]{{1,{LONGEST_ID}}}")


def is_id(text: str) -> bool:
    """Whether a text can be the key, medium or person of a record: 1 to 64 letters, digits, ``_ . : -``."""
    return _ID.fullmatch(text) is not None


def to_record(row: Row) -> dict[str, Any]:
    """A row as the index keeps it. StoreError if an id has another form or the evidence id is too long."""
    for name, value in (("key", row.key), ("media", row.media), ("person", row.person or "-")):
        if not is_id(value):
            raise StoreError(f"{name} {value!r} of a row is not an id (1 to {LONGEST_ID} letters, digits, _ . : -)")
    if len(row.evidence.encode()) > LONGEST_EVIDENCE:
        raise StoreError(f"evidence id of row {row.key} is longer than {LONGEST_EVIDENCE} bytes")
    return {
        "key": row.key,
        "vector": row.embedding.vector,
        "modality": str(row.embedding.modality),
        "media": row.media,
        "person": row.person,
        "evidence": row.evidence,
        "track": int(row.track),
        "start_ms": int(row.span_ms[0]),
        "end_ms": int(row.span_ms[1]),
        "quality": float(row.quality),
    }


def to_row(space: Space, record: Mapping[str, Any]) -> Row:
    """The row of a record (quality to float32 precision)."""
    vector = np.asarray(record["vector"], dtype=np.float32)
    return Row(
        key=record["key"],
        embedding=Embedding(space, Modality(record["modality"]), vector),
        media=record["media"],
        track=int(record["track"]),
        span_ms=(int(record["start_ms"]), int(record["end_ms"])),
        evidence=record["evidence"],
        person=record["person"],
        quality=float(record["quality"]),
    )


def to_entry(space: Space, record: Mapping[str, Any]) -> Entry:
    """The same of a record without vector."""
    return Entry(
        key=record["key"],
        space=space,
        modality=Modality(record["modality"]),
        media=record["media"],
        track=int(record["track"]),
        span_ms=(int(record["start_ms"]), int(record["end_ms"])),
        evidence=record["evidence"],
        person=record["person"],
        quality=float(record["quality"]),
    )


def in_order(hits: Iterable[Hit]) -> list[Hit]:
    """Best first, equal scores by key."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.row.key))


def cosines(probe: Embedding, rows: Sequence[Row]) -> list[float]:
    """Scores of rows, in float64 and rounded to float32: engines round differently, equal vectors must score equal."""
    vectors = np.stack([row.embedding.vector for row in rows]).astype(np.float64)  # (rows, dimension)
    asked = probe.vector.astype(np.float64) / np.linalg.norm(probe.vector)
    scores = np.einsum("rd,d->r", vectors, asked) / np.linalg.norm(vectors, axis=1)
    return [float(score) for score in np.clip(scores, -1.0, 1.0).astype(np.float32)]


def to_expression(where: Filter, want: Modality | None = None) -> str:
    """A filter in the index's language; "" admits everything. StoreError if it names something not an id."""
    parts = []
    if want is not None:
        parts.append(f'modality == "{want}"')
    if where.persons:
        parts.append(f"person in {quoted(where.persons)}")
    if where.enrolled is not None:
        parts.append('person != ""' if where.enrolled else 'person == ""')
    if where.exclude_media:
        parts.append(f"media not in {quoted(where.exclude_media)}")
    return " and ".join(parts)


def quoted(ids: Sequence[str]) -> str:
    """Ids as a list of the expression language. Only ids pass, so there is nothing to escape."""
    for text in ids:
        if not is_id(text):
            raise StoreError(f"{text!r} in a filter is not an id (1 to {LONGEST_ID} letters, digits, _ . : -)")
    return "[" + ", ".join(f'"{text}"' for text in ids) + "]"
