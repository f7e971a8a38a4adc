"""Which encoders serve, as an archive must know it: now, until when, and what beside them is kept.

A model is exchanged while others write. So whoever writes rows asks for the encoders right before, and they go on
serving until the rows are written; whoever exchanges them waits for that, and whoever comes then gets the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from encoders.encoder import Encoder


class ServingModels(Protocol):
    """The serving encoders of an installation. No block of one may be entered inside a block of the same."""

    def writing(self) -> AbstractContextManager[Mapping[str, Encoder]]:
        """The serving encoders by the name of their space; they go on serving until the block ends."""

    def filling(self) -> AbstractContextManager[None]:
        """While the block lasts nobody is forgotten: rows may be made of what the records say in it."""

    def erasing(self) -> AbstractContextManager[None]:
        """While the block lasts nobody makes rows of what the records said a moment ago."""

    def kept(self) -> frozenset[str]:
        """Digests of spaces that do not serve and whose rows are kept all the same: being filled, or to go back to."""

    def learned_from(self, identity: str) -> tuple[str, ...]:
        """The installation's models, by the names of their folders, that learned from somebody.

        Args:
            identity: what they call a person: see search.people.learned_identity.
        """


class FixedModels:
    """Encoders that nobody exchanges: see ServingModels."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        self._encoders = encoders

    def writing(self) -> AbstractContextManager[Mapping[str, Encoder]]:
        """See ServingModels.writing."""
        return nullcontext(self._encoders)

    def filling(self) -> AbstractContextManager[None]:
        """See ServingModels.filling."""
        return nullcontext()

    def erasing(self) -> AbstractContextManager[None]:
        """See ServingModels.erasing."""
        return nullcontext()

    def kept(self) -> frozenset[str]:
        """See ServingModels.kept: none."""
        return frozenset()

    def learned_from(self, identity: str) -> tuple[str, ...]:
        """See ServingModels.learned_from: none, as it knows of no folders."""
        return ()
