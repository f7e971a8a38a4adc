"""Answering with whichever model serves: going over to another one without a pause and without mixing two.

What answers is a snapshot: encoders, and an engine made with them, that never change. A question is answered by one
snapshot from beginning to end. When another model is chosen (``visavox reencode``), a new snapshot is made beside
the old one, and then takes its place in one assignment; its encoder is loaded while its collection is still being
filled, so that nobody waits for that. Vectors of the space before are answered by the old snapshot as long as its
rows are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from deploy.choice import read_choices
from deploy.logs import log
from deploy.models import serving_folder
from deploy.wiring import Installation
from encoders.encoder import Encoder, EncoderError
from encoders.space import Embedding, Modality
from ingest.ledger import RecordsError
from search.answers import FindAnswer, MatchAnswer, VerifyAnswer, WhoAnswer
from search.engine import Engine
from search.store import EVERYTHING, SHARED, Filter, StoreError

# How long another choice may go unnoticed.
LOOK_SECONDS = 0.1
# A model that could not be loaded is tried again this much later.
AGAIN_SECONDS = 5.0
OUTDATED = "another model was chosen, and this server has still to load it: ask again in a moment"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What answers questions: it never changes.

    Args:
        folder: of the shared-space encoder; None without one.
        encoders: by the name of their space.
        engine: made with them.
    """

    folder: Path | None
    encoders: Mapping[str, Encoder]
    engine: Engine


class LiveEncoders(Sequence[Encoder]):
    """The encoders that serve now, as a sequence that is looked at anew each time."""

    def __init__(self, engine: LiveEngine) -> None:
        self._engine = engine

    def __iter__(self) -> Iterator[Encoder]:
        return iter(tuple(self._engine.now.encoders.values()))

    @overload
    def __getitem__(self, index: int) -> Encoder: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Encoder]: ...
    def __getitem__(self, index: int | slice) -> Encoder | Sequence[Encoder]:
        return tuple(self._engine.now.encoders.values())[index]

    def __len__(self) -> int:
        return len(self._engine.now.encoders)


class LiveEngine:
    """Answers as :class:`search.engine.Engine` does, with the model that serves at the moment of the question.

    Args:
        opened: the installation; its serving encoders are loaded here.
    """

    def __init__(self, opened: Installation) -> None:
        self._opened = opened
        self._snapshots: dict[Path | None, Snapshot] = {}
        self._failed: dict[Path | None, tuple[float, str]] = {}
        self.encoders = LiveEncoders(self)
        opened.renew()
        self._now = self._take(serving_folder(opened.settings))

    @property
    def now(self) -> Snapshot:
        """What answers at this moment."""
        return self._now

    # ---- questions: each takes one snapshot -----------------------------------------------------

    def find(self, path: Path, want: Modality, top: int = 10, where: Filter = EVERYTHING) -> FindAnswer:
        """See search.engine.Engine.find."""
        return self._now.engine.find(path, want, top, where)

    def find_vector(self, probe: Embedding, want: Modality, top: int = 10, where: Filter = EVERYTHING) -> FindAnswer:
        """See search.engine.Engine.find_vector; also of the space before, while its rows are kept."""
        return self._of(probe.space.digest).engine.find_vector(probe, want, top, where)

    def who(self, path: Path) -> WhoAnswer:
        """See search.engine.Engine.who."""
        return self._now.engine.who(path)

    def verify(self, a: Path, b: Path, kind: str) -> VerifyAnswer:
        """See search.engine.Engine.verify."""
        return self._now.engine.verify(a, b, kind)

    def match(self, probe: Path, candidates: Sequence[Path], kind: str) -> MatchAnswer:
        """See search.engine.Engine.match."""
        return self._now.engine.match(probe, candidates, kind)

    def retired(self) -> list[Encoder]:
        """The shared-space encoder that served before, if it is loaded and its rows are kept."""
        return [snapshot.encoders[SHARED] for snapshot in self._retired()]

    def _retired(self) -> list[Snapshot]:
        with suppress(EncoderError):
            choice = read_choices(self._opened.settings.home)
            kept = self._snapshots.get(choice.previous) if choice.previous else None
            return [kept] if kept is not None and kept is not self._now else []
        return []

    def _of(self, digest: str) -> Snapshot:
        now = self._now
        for snapshot in (now, *self._retired()):
            if any(encoder.space.digest == digest for encoder in snapshot.encoders.values()):
                return snapshot
        return now  # which refuses it

    # ---- going over -----------------------------------------------------------------------------

    def outdated(self) -> str | None:
        """Why no question can be answered rightly, or None.

        The model before still gives right answers while its rows are kept; so does none at all.
        """
        settings = self._opened.settings
        try:
            choice = read_choices(settings.home)
        except EncoderError as error:
            return str(error)
        wanted = settings.model or choice.serving
        if self._now.folder in (wanted, choice.previous, None):
            return None
        failed = self._failed.get(wanted)
        return failed[1] if failed else OUTDATED

    @contextmanager
    def following(self) -> Iterator[None]:
        """Go over to what is chosen, whenever that changes, until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK_SECONDS):
                self.follow()

        thread = threading.Thread(target=watch, name="models", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def follow(self) -> None:
        """Go over to the model that is chosen now, if it is another one, and load the one that is being filled.

        A model that cannot be loaded is logged, and tried again later; what answered before goes on.
        """
        settings = self._opened.settings
        try:
            choice = read_choices(settings.home)
        except EncoderError:
            return  # said by `outdated`
        wanted = settings.model or choice.serving
        if wanted != self._now.folder:
            self._go_over(wanted)
        if choice.filling is not None:
            self._try(choice.filling)
        in_use = {self._now.folder, wanted, choice.previous, choice.filling}
        for folder in self._snapshots.keys() - in_use:
            del self._snapshots[folder]

    def _go_over(self, wanted: Path | None) -> None:
        snapshot = self._try(wanted)
        if snapshot is None:
            return
        try:
            if shared := snapshot.encoders.get(SHARED):
                self._opened.store.count(shared.space)  # its collection is found and loaded before anybody asks it
        except StoreError:
            return  # the index is away: what answered before says so, too
        self._now = snapshot
        self._opened.renew()
        log().info("model", serving=str(wanted) if wanted else None)

    def _try(self, folder: Path | None) -> Snapshot | None:
        """The snapshot with a model; None if it cannot be made just now."""
        failed = self._failed.get(folder)
        if failed and time.monotonic() - failed[0] < AGAIN_SECONDS:
            return None
        try:
            snapshot = self._take(folder)
        except (EncoderError, RecordsError) as error:
            if not failed:
                log().error("model", folder=str(folder), reason=str(error))
            self._failed[folder] = time.monotonic(), str(error)
            return None
        self._failed.pop(folder, None)
        return snapshot

    def _take(self, folder: Path | None) -> Snapshot:
        if folder not in self._snapshots:
            encoders = self._opened.encoders_with(folder)
            self._snapshots[folder] = Snapshot(folder, encoders, self._opened.engine_with(encoders))
        return self._snapshots[folder]
