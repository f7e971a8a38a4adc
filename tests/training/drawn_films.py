"""Films as their records would have them, drawn in a few numbers: who is seen, who is heard, what was judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from ingest.ledger import Pairing
from search.scores import Calibration
from training.filmed import EnrolledSamples, Film, FilmedFace, FilmedTurn, Looks

DIMENSION = 16
CALIBRATIONS = {modality: Calibration(0.8, 50.0) for modality in Modality}


def point(person: int, noise: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """A unit vector of a person; the same person's are near, different people's are at right angles."""
    vector = np.eye(DIMENSION)[person] + noise * np.random.default_rng([person, seed]).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def looks(person: int, name: str, count: int = 2, quality: float = 1.0) -> Looks:
    """Some samples of a person."""
    evidence = tuple(f"{name} {number}" for number in range(count))
    vectors = np.stack([point(person, 0.05, number) for number in range(count)])
    return Looks(vectors, np.full(count, quality), evidence)


def face(
    person: int, track: int, span: tuple[int, int] = (0, 9000), media: str = "a", enrolled: str = ""
) -> FilmedFace:
    """A face track."""
    return FilmedFace(track, span, looks(person, f"{media} face {track}"), enrolled)


def turn(
    person: int, speaker: int, start: int, seen: tuple[int | None, float, float] | None, overlapped: float = 0.0,
    media: str = "a",
) -> FilmedTurn:  # fmt: skip
    """A turn of one second; ``seen``: the face that may speak, how probably, and how probably nobody who is seen."""
    name = f"{media} turn {start}"
    pairing = None if seen is None else Pairing(media, name, start, start + 1000, *seen, overlapped)
    return FilmedTurn(speaker, (start, start + 1000), looks(person, name, 1), pairing)


def film(faces: Sequence[FilmedFace], turns: Sequence[FilmedTurn], media: str = "a") -> Film:
    """A film of these."""
    return Film(media, tuple(faces), tuple(turns))


def portrait(person: int, media: str, probability: float = 0.95) -> Film:
    """A film in which one person is seen to speak two turns."""
    seen = (0, probability, 1 - probability)
    turns = [turn(person, 0, start, seen, media=media) for start in (0, 2000)]
    return film([face(person, 0, media=media)], turns, media)


def enrolled(person: int, identity: str, faces: bool = True, voices: bool = True) -> EnrolledSamples:
    """Somebody who is enrolled, with faces, voices or both."""
    shown, heard = (looks(person, f"{identity} {what}") for what in ("face", "voice"))
    return EnrolledSamples(identity, shown if faces else None, heard if voices else None)
