"""Bringing in another model while the one before serves: announced, filled, measured, switched; and back again.

The new model's rows are made from the stored evidence into a collection of their own, beside the one that serves.
Others write meanwhile; they write rows of the serving model only, so the records are gone through again until
nothing is missing, for the last time while nobody else writes: then the choice is replaced, and who writes next
writes rows of the new model. Searches never wait: servers go over to it by themselves (:mod:`deploy.live`). Killed
at any moment, what serves is one model with all of its rows, and the same command goes on where this one was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.choice import Choice, read_choices, write_choices
from deploy.models import check_model, load_shared, serving_folder
from deploy.wiring import Installation
from encoders.encoder import Encoder, EncoderError, Sample, Unusable
from encoders.folder import read_description, read_probe_centres
from encoders.space import Embedding, Modality, Space
from ingest.track import Extraction
from search.archive import Archive
from search.comparison import NEW, OLD, compare_models
from search.filling import Known, OnRows, RowEncoder
from search.store import SHARED

# Servers have this long to notice that a collection is no more to be asked, before it is dropped.
GRACE_SECONDS = 2.0
# So often the records are gone through before others have to wait for the rest.
MOST_PASSES = 10


class NoModelKept(EncoderError):
    """There is no model to go back to."""


@dataclass(frozen=True)
class Exchanged:
    """What an exchange of models did.

    Args:
        folder: of the model; None: no shared-space encoder.
        space: of its rows; None without one.
        rows: that it has.
        written: rows that were written, renamed or removed in its collection.
        dropped: collections of other models that were dropped.
        figures: mean average precision of old and new (:func:`search.comparison.compare_models`); None: not measured.
        switched: whether it serves now.
        switch_seconds: for how long nobody else could write; None if nothing was switched.
        seconds: in all.
    """

    folder: Path | None
    space: Space | None
    rows: int
    written: int
    dropped: int
    figures: dict[str, Any] | None
    switched: bool
    switch_seconds: float | None
    seconds: float


class Exchange:
    """Exchanges the shared-space encoder of an installation.

    Args:
        opened: the installation.
        on_rows: told how many samples are encoded, and of how many.
        on_waiting: told now and then for how many seconds those who just write have been waited for.
    """

    def __init__(
        self,
        opened: Installation,
        on_rows: OnRows = lambda seen, total: None,
        on_waiting: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._opened = opened
        self._home = opened.settings.home
        self._on_rows = on_rows
        self._on_waiting = on_waiting
        self._known = Known()

    # ---- what a person asks for -----------------------------------------------------------------

    def bring_in(self, folder: Path | None, *, measure: bool, switch: bool, keep: bool = True) -> Exchanged:
        """Fill the collection of a model, and let it serve.

        Args:
            folder: an encoder folder; None: no shared-space encoder is to serve.
            measure: whether to measure it and the one that serves.
            switch: whether it is to serve; if not, it is prepared only.
            keep: whether the rows of the one before are kept to go back to it.

        Raises:
            EncoderError: the folder is no shared-space encoder, or damaged.
            ReencodingRuns: somebody else is just doing this.
            StoreError, RecordsError.
        """
        started = time.monotonic()
        encoder = check_model(folder, self._opened.settings.device) if folder else None
        self._opened.store.open()  # before anything changes: somebody else may hold it
        with self._opened.locks.exchanging():
            if folder and self._choice.serving != folder:
                self._choose(replace(self._choice, filling=folder))
            written = self._catch_up(encoder)
            figures = self._compared(encoder) if measure and encoder else None
            seconds = None
            if switch:
                before = self._choice
                previous = before.previous if folder == before.serving else before.serving
                last, seconds = self._switch(encoder, Choice(folder, previous if keep else None))
                written += last
            dropped = self._drop_unused() if switch else 0
            return self._exchanged(folder, encoder, written, dropped, figures, seconds, started)

    def go_back(self) -> Exchanged:
        """Let the model serve that served before; what was written since is encoded for it first.

        Raises:
            NoModelKept: there is none, or its folder is gone.
            ReencodingRuns, EncoderError, StoreError, RecordsError: as for ``bring_in``.
        """
        started = time.monotonic()
        self._opened.store.open()
        with self._opened.locks.exchanging():
            choice = self._choice
            if choice.previous is None:
                raise NoModelKept("no model is kept to go back to: choose one with `visavox reencode --model FOLDER`")
            encoder = LazyEncoder(choice.previous, self._opened.settings.device)
            written = self._catch_up(encoder)
            last, seconds = self._switch(encoder, replace(choice, serving=choice.previous, previous=choice.serving))
            return self._exchanged(choice.previous, encoder, written + last, 0, None, seconds, started)

    def discard(self) -> int:
        """Drop the collections of the model that is kept to go back to, and of one that was only prepared.

        Returns:
            The number of collections dropped.

        Raises:
            ReencodingRuns, EncoderError, StoreError.
        """
        self._opened.store.open()
        with self._opened.locks.exchanging():
            self._choose(Choice(self._choice.serving))
            return self._drop_unused()

    # ---- its steps ------------------------------------------------------------------------------

    @property
    def _choice(self) -> Choice:
        return read_choices(self._home)

    def _choose(self, choice: Choice) -> None:
        """Replace the choice while nobody writes."""
        if choice != self._choice:
            with self._opened.locks.choice.alone(self._on_waiting):
                write_choices(self._home, choice)

    @cached_property
    def _archive(self) -> Archive:
        """Fills collections: no encoder of its own, since none of them serves."""
        return Archive(_unread, "", {}, self._opened.store, self._opened.records, self._opened)

    def _fill(self, encoder: RowEncoder) -> int:
        return self._archive.fill(encoder, self._on_rows, self._known)

    def _catch_up(self, encoder: RowEncoder | None) -> int:
        """Encode what is missing until nothing is, or others write as quickly as this does; the rows changed."""
        changed = 0
        for _ in range(MOST_PASSES):
            if encoder is None:
                break
            step = self._fill(encoder)
            changed += step
            if not step:
                break
        return changed

    def _switch(self, encoder: RowEncoder | None, after: Choice) -> tuple[int, float]:
        """The rest, and the choice, while nobody writes; the rows changed, and for how many seconds."""
        with self._opened.locks.choice.alone(self._on_waiting):
            began = time.monotonic()
            changed = self._finish(encoder) if encoder else 0
            write_choices(self._home, after)
            return changed, time.monotonic() - began

    def _finish(self, encoder: RowEncoder) -> int:
        """Go through the records for the last time, and through the index where it does not hold what it should."""
        changed = self._fill(encoder)
        if self._known.people is None or self._opened.store.count(encoder.space) != len(self._known.people):
            self._known.people = None
            changed += self._fill(encoder)
        return changed

    def _compared(self, encoder: Encoder) -> dict[str, Any]:
        centres, old, serving = {NEW: encoder.probe_centres}, None, self._choice.serving
        if serving:
            described = read_description(serving)
            old, centres[OLD] = described.make_space(), read_probe_centres(serving, described)
        return compare_models(self._opened.store, old, encoder.space, probe_centres=centres)

    def _drop_unused(self) -> int:
        """Drop collections that neither serve nor are kept; the number of them."""
        opened, serving = self._opened, serving_folder(self._opened.settings)
        keep = opened.kept() | ({read_description(serving).digest()} if serving else set())
        unused = {space for space in opened.store.spaces() if space.name == SHARED and space.digest not in keep}
        if unused and not opened.settings.embedded:
            time.sleep(GRACE_SECONDS)
        with opened.locks.choice.shared() if unused else nullcontext():
            return opened.store.drop_others(SHARED, keep=keep)

    def _exchanged(
        self,
        folder: Path | None,
        encoder: RowEncoder | None,
        written: int,
        dropped: int,
        figures: dict[str, Any] | None,
        switch_seconds: float | None,
        started: float,
    ) -> Exchanged:
        space = encoder.space if encoder else None
        rows = self._opened.store.count(space) if space else 0
        return Exchanged(
            folder, space, rows, written, dropped, figures, switch_seconds is not None, switch_seconds,
            time.monotonic() - started,
        )  # fmt: skip


class LazyEncoder:
    """An encoder that is loaded when there is something to encode: going back is quick where nothing is.

    Args:
        folder: of the encoder.
        device: to load it on.

    Raises:
        NoModelKept: there is no encoder in the folder any more.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device
        try:
            description = read_description(folder)
        except EncoderError as error:
            raise NoModelKept(f"the model before is not there any more ({error})") from error
        self.space = description.make_space()
        self.modalities = frozenset(description.branches)

    @cached_property
    def _loaded(self) -> Encoder:
        return load_shared(self._folder, self._device)

    def encode(self, modality: Modality, samples: Sequence[Sample]) -> list[Embedding | Unusable]:
        """See encoders.encoder.Encoder.encode. Raises EncoderError."""
        return self._loaded.encode(modality, samples) if samples else []


def _unread(path: Path) -> Extraction:
    """Who exchanges models opens no film."""
    raise AssertionError(f"{path} was to be read")
