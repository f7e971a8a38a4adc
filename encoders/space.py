"""The shared vocabulary of vectors: modality, space, embedding.

A vector never meets a vector of another space: every embedding carries its space, and
:func:`require_same_space` is the one check that everything above uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

UNIT_TOLERANCE = 1e-3


class Modality(StrEnum):
    """What a sample shows of a person."""

    FACE = "face"
    VOICE = "voice"

    @property
    def other(self) -> Modality:
        """The opposite modality: face for voice, voice for face."""
        return Modality.VOICE if self is Modality.FACE else Modality.FACE


class SpaceMismatch(ValueError):
    """Vectors of two different spaces were about to be compared or stored together."""


@dataclass(frozen=True)
class Space:
    """What an encoder's output lives in.

    Args:
        name: short name, such as ``face_identity``.
        dimension: number of components of a vector, at least 1.
        digest: SHA-256 (64 hex digits) of everything that determines the vectors: networks,
            weights and preparation. Two spaces are the same only if their digests are.
    """

    name: str
    dimension: int
    digest: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a space's name is an identifier, got {self.name!r}")
        if self.dimension < 1:
            raise ValueError(f"space {self.name}: dimension must be at least 1, got {self.dimension}")
        if len(self.digest) != 64 or set(self.digest) - set("0123456789abcdef"):
            raise ValueError(f"space {self.name}: digest must be 64 hex digits, got {self.digest!r}")


@dataclass(frozen=True, eq=False)
class Embedding:
    """One point of a space: finite, unit length, float32, read-only; checked at birth.

    Args:
        space: the space it lives in.
        modality: what it was made from.
        vector: (dimension,) float32 of unit length.

    Raises:
        ValueError: wrong shape, not finite, or not of unit length.
    """

    space: Space
    modality: Modality
    vector: NDArray[np.float32]

    def __post_init__(self) -> None:
        vector = np.array(self.vector, dtype=np.float32)
        if vector.shape != (self.space.dimension,):
            raise ValueError(f"{self.space.name} needs vectors of shape ({self.space.dimension},), got {vector.shape}")
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or abs(length - 1.0) > UNIT_TOLERANCE:
            raise ValueError(f"{self.space.name}: an embedding is finite and of unit length, got length {length}")
        vector.setflags(write=False)
        object.__setattr__(self, "vector", vector)

    @classmethod
    def of(cls, space: Space, modality: Modality, values: NDArray[np.floating]) -> Embedding:
        """Normalise ``values`` (dimension,) to unit length; raises ValueError if that is impossible."""
        values = np.asarray(values, dtype=np.float64)
        length = float(np.linalg.norm(values))
        if not np.isfinite(length) or length < 1e-12:
            raise ValueError(f"{space.name}: a vector of length {length} has no direction")
        return cls(space, modality, (values / length).astype(np.float32))


def require_same_space(expected: Space, *others: Space) -> None:
    """Raise SpaceMismatch unless every other space is the expected one (by digest)."""
    for other in others:
        if other.digest != expected.digest:
            raise SpaceMismatch(
                f"expected space {expected.name} ({expected.digest[:12]}), got {other.name} ({other.digest[:12]}): "
                "re-encode the older vectors with the encoder that serves now"
            )
