"""Frozen vectors of people: what a head learns from in minutes, without the networks that made them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from training.corpora.manifest import Split
from training.features import Features, FeaturesError


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of people, in memory or mapped into it; people are numbered in the order of their names.

    Args:
        identities: names, sorted.
        sexes: ``f`` or ``m`` of each, empty where nobody says.
        faces: (n, d) float32.
        face_people: (n,) int64 numbers of identities.
        voices: (m, e) float32.
        voice_people: (m,) int64 numbers of identities.
        digest: SHA-256 of all that determines them.
        face_weights: (n,) float32 in [0, 1], how sure it is that a face is that person's; None: all are.
        voice_weights: likewise.
        kin: (people,) int64, one number for those who possibly are one person, who never meet in a batch
            (:mod:`training.batches`); None: all are surely different.

    Raises:
        ValueError: the parts do not fit together, or somebody has no face or no voice.
    """

    identities: tuple[str, ...]
    sexes: tuple[str, ...]
    faces: NDArray[np.float32]
    face_people: NDArray[np.int64]
    voices: NDArray[np.float32]
    voice_people: NDArray[np.int64]
    digest: str = ""
    face_weights: NDArray[np.float32] | None = None
    voice_weights: NDArray[np.float32] | None = None
    kin: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count = len(self.identities)
        if len(self.sexes) != count or set(self.sexes) - {"f", "m", ""}:
            raise ValueError(f"{count} people need as many sexes, f or m, got {len(self.sexes)}")
        for what, vectors, people, weights in (
            ("face", self.faces, self.face_people, self.face_weights),
            ("voice", self.voices, self.voice_people, self.voice_weights),
        ):
            if vectors.ndim != 2 or vectors.dtype != np.float32 or len(people) != len(vectors):
                raise ValueError(
                    f"{what}s are (n, d) float32 of as many people's numbers, got {vectors.shape} {vectors.dtype} "
                    f"and {len(people)}"
                )
            if not np.array_equal(np.unique(people), np.arange(count)):
                raise ValueError(f"every one of {count} people needs a {what}, and no other is known")
            if weights is not None and (weights.shape != people.shape or ((weights < 0) | (weights > 1)).any()):
                raise ValueError(f"weights of {what}s are as many numbers in [0, 1], got {weights.shape}")
        if self.kin is not None and self.kin.shape != (count,):
            raise ValueError(f"{count} people need as many numbers of kin, got {self.kin.shape}")

    @property
    def apart(self) -> int:
        """How many people there are of whom no two are possibly one: the most that a batch can hold."""
        return len(self.identities) if self.kin is None else len(np.unique(self.kin))

    def of(self, modality: Modality) -> NDArray[np.float32]:
        """The vectors of a modality."""
        return self.faces if modality is Modality.FACE else self.voices


def vectors_of(features: Features, split: Split) -> Vectors:
    """The people of a split who have both modalities, out of a folder of features.

    Raises:
        FeaturesError: fewer than two of them, or a modality is missing.
    """
    people = features.both(split)
    if len(people) < 2 or len(features.tables) < len(Modality):
        raise FeaturesError(
            f"{features.folder} has faces and voices of {len(people)} people of {split.name.lower()}, at least 2 are "
            "needed: extract features of faces and voices with `visavox features`"
        )
    number = {name: place for place, name in enumerate(people)}
    digest, parts, sexes = hashlib.sha256(), {}, dict.fromkeys(people, "")
    for modality in Modality:
        table = features[modality]
        rows = [row for row in table.of_split(split).tolist() if table.rows[row].person in number]
        for row in rows:
            told = table.rows[row]
            sexes[told.person] = sexes[told.person] or told.sex
            digest.update(f"{modality} {table.space.digest} {told.person} {told.key}\n".encode())
        owners = np.array([number[table.rows[row].person] for row in rows], dtype=np.int64)
        parts[modality] = np.ascontiguousarray(table.vectors[rows]), owners
    return Vectors(
        identities=people,
        sexes=tuple(sexes[name] for name in people),
        faces=parts[Modality.FACE][0],
        face_people=parts[Modality.FACE][1],
        voices=parts[Modality.VOICE][0],
        voice_people=parts[Modality.VOICE][1],
        digest=digest.hexdigest(),
    )
