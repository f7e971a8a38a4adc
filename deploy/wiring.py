"""Settings to living objects: the only place that chooses between one part and another."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from uuid import uuid4

from deploy import reading
from deploy.choice import ModelLocks
from deploy.models import kept_digests, load_serving, models_that_learned_from, serving_folder
from deploy.reading import SPEECH_DETECTOR, make_extractor
from deploy.settings import Settings, environment_of_readers, load_settings
from encoders.batching import Batch, shared_by_threads
from encoders.encoder import Encoder, packaged_encoders
from encoders.folder import read_description
from ingest.database import open_database
from ingest.ledger import Database, Ledger
from ingest.pipeline import Extractor
from ingest.sandbox import Sandbox, SandboxLimits
from ingest.track import Extraction
from search.archive import Archive, Records
from search.domains import Domains
from search.engine import Engine
from search.evidence import Evidence
from search.milvus import MilvusStore
from search.people import People
from search.probes import Prober
from search.store import SHARED, StoreError

# How long a command waits for the embedded index while another command is about to let go of it.
PATIENCE_SECONDS = 10.0
# A worker waits longer: a question being answered must not make a file fail.
WORKER_PATIENCE_SECONDS = 120.0
# How long who ingests goes on asking a server that is away: restarted, or moved by those who run it.
OUTAGE_SECONDS = 600.0


# What a file that somebody uploads may cost: seconds by the clock, and bytes of memory beyond what the models take.
UPLOAD_SECONDS, UPLOAD_SECONDS_PER_SECOND, UPLOAD_BYTES = 60.0, 4.0, 2_500_000_000
# Uploads that are read at a time, each by a process with models of its own.
MOST_READERS = 4
# Stages of an answer that a meter is told of.
READING, ENCODING, ENCODER_QUEUE = "reading", "encoding", "encoder_queue"

Observe = Callable[[str, float], None]


@dataclass(frozen=True)
class Outage:
    """What to do while a server of the index or of the records is away.

    Args:
        seconds: to go on asking from when it went.
        notice: told once that it is being waited for.
    """

    seconds: float
    notice: Callable[[str], None] | None = None


BRIEF = Outage(seconds=2.0)


class Installation:
    """All parts of one installation, each made when it is first asked for.

    Args:
        settings: where it lives and what it is made of.
        patience: seconds to wait for an embedded index that another process holds.
        consistency: what searches see. A command asks ``Strong``, since it may follow another process's
            enrolment by a moment; a server that lives on asks ``Bounded``, which is quicker.
        observe: given by a server that many ask at once, about files that nobody trusts: files are then read by
            processes that can be killed, threads share the networks, and it is told how long the stages take.
        outage: what to do while a server of the index or of the records is away.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience: float = PATIENCE_SECONDS,
        consistency: Literal["Strong", "Bounded"] = "Strong",
        observe: Observe | None = None,
        outage: Outage = BRIEF,
    ) -> None:
        self.settings = settings
        self._outage = outage
        self._observe = observe
        self._patience = patience
        self._consistency: Literal["Strong", "Bounded"] = consistency
        self._store: MilvusStore | None = None
        self._loaded_model: Path | None = None
        self._shared_encoders: dict[Path, Encoder] = {}
        self._loading = threading.Lock()
        self.locks = ModelLocks(settings.home)

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """The serving encoders by the name of their space: the identity encoders, and a shared one if one serves.

        Raises:
            EncoderError: one cannot be loaded; of the shared one it says who named its folder.
        """
        self._loaded_model = serving_folder(self.settings)
        return self.encoders_with(self._loaded_model)

    def encoders_with(self, folder: Path | None) -> dict[str, Encoder]:
        """The identity encoders and the shared-space encoder of a folder, if one is given; each is loaded once.

        Raises EncoderError.
        """
        encoders = dict(self._identity_encoders)
        with self._loading:
            if folder is not None and folder not in self._shared_encoders:
                self._shared_encoders[folder] = self._for_threads(load_serving(self.settings, folder))
        if folder is not None:
            encoders[SHARED] = self._shared_encoders[folder]
        return encoders

    @cached_property
    def _identity_encoders(self) -> dict[str, Encoder]:
        loaded = [
            Encoder.load(folder, device=self.settings.device, precision="auto")
            for folder in packaged_encoders().values()
        ]
        return {encoder.space.name: self._for_threads(encoder) for encoder in loaded}

    def _for_threads(self, encoder: Encoder) -> Encoder:
        return shared_by_threads(encoder, self._batch_done) if self._observe else encoder

    # ---- which model serves: see search.serving.ServingModels ---------------------------------------

    def renew(self) -> None:
        """Go on with the model that is chosen now."""
        if self.outdated:
            vars(self).pop("encoders", None)

    @contextmanager
    def writing(self) -> Iterator[Mapping[str, Encoder]]:
        """See search.serving.ServingModels.writing."""
        with self.locks.choice.shared():
            self.renew()
            yield self.encoders

    def filling(self) -> AbstractContextManager[None]:
        """See search.serving.ServingModels.filling."""
        return self.locks.records.shared()

    def erasing(self) -> AbstractContextManager[None]:
        """See search.serving.ServingModels.erasing."""
        return self.locks.records.alone()

    def kept(self) -> frozenset[str]:
        """See search.serving.ServingModels.kept."""
        return kept_digests(self.settings)

    def learned_from(self, identity: str) -> tuple[str, ...]:
        """See search.serving.ServingModels.learned_from."""
        return models_that_learned_from(self.settings, identity)

    @property
    def lacks_shared_rows(self) -> bool:
        """Whether the shared-space encoder has fewer rows than the identity encoders, as far as the index can tell.

        It has after a switch that was interrupted, or that VISAVOX_MODEL made: mending encodes what is missing.
        """
        shared, others = self._rows()
        return shared < others

    @property
    def shared_is_empty(self) -> bool:
        """Whether a shared-space encoder serves that has no rows at all, though there is something to have."""
        shared, others = self._rows()
        return not shared and others > 0

    def _rows(self) -> tuple[int, int]:
        """Rows of the shared space and of the others; none without a shared encoder or an index that answers."""
        if SHARED not in self.encoders:
            return 0, 0
        try:
            rows = {name: self.store.count(encoder.space) for name, encoder in self.encoders.items()}
        except StoreError:
            return 0, 0
        return rows.pop(SHARED), sum(rows.values())

    @property
    def outdated(self) -> bool:
        """Whether another model has been chosen since the encoders of this process were loaded."""
        return "encoders" in vars(self) and self._loaded_model != serving_folder(self.settings)

    @cached_property
    def extractor(self) -> Extractor:
        """Reads files into tracks, in this process: files that whoever named them is trusted with."""
        return make_extractor(self.encoders, self.settings.face_detector, self.settings.device)

    @cached_property
    def sandbox(self) -> Sandbox:
        """Reads files that nobody trusts; its processes start when they are first needed."""
        limits = SandboxLimits(UPLOAD_SECONDS, UPLOAD_BYTES, min(MOST_READERS, processors()), UPLOAD_SECONDS_PER_SECOND)
        # one thread each: there are as many processes as processors
        environment = environment_of_readers(self.settings)
        return Sandbox("deploy.reading:sandboxed_extractor", limits, environment=environment)

    def extract(self, path: Path) -> Extraction:
        """Read a file into tracks, in a process of its own if this installation is asked by many. Raises MediaError."""
        if self._observe is None:
            return self.extractor.extract(path)
        began = time.monotonic()
        try:
            return self.sandbox.extract(path)
        finally:
            self._observe(READING, time.monotonic() - began)

    def _batch_done(self, batch: Batch) -> None:
        if self._observe:
            self._observe(ENCODER_QUEUE, batch.waited)
            self._observe(ENCODING, batch.seconds)

    @cached_property
    def records(self) -> Records:
        """Ledger, people and evidence."""
        return Records(Ledger(self.database), People(self.database), Evidence(self.settings.home / "evidence"))

    @cached_property
    def database(self) -> Database:
        """Where the records are, and the book of work."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        return open_database(self.settings.database_url, patience=self._outage.seconds, notice=self._outage.notice)

    @property
    def store(self) -> MilvusStore:
        """The index; opened anew after ``release``."""
        if self._store is None:
            if self.settings.embedded:
                Path(self.settings.milvus_uri).parent.mkdir(parents=True, exist_ok=True)
            self._store = MilvusStore(
                self.settings.milvus_uri, wait=self._patience, consistency=self._consistency,
                patience=self._outage.seconds, notice=self._outage.notice,
            )  # fmt: skip
        return self._store

    def release(self) -> None:
        """Let go of the index, so that another process may own it."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def archive(self) -> Archive:
        """The write side.

        Whoever switches models holds an embedded index until that is done: which model serves is settled after it.
        """
        if self.settings.embedded:
            self.store.open()
            self.renew()
        return Archive(self.extract, self.reading, self.encoders, self.store, self.records, self)

    @property
    def prober(self) -> Prober:
        """Reads probes as the engine does."""
        return self._prober_with(self.encoders)

    def _prober_with(self, encoders: Mapping[str, Encoder]) -> Prober:
        return Prober(self.extract, encoders, self.store, self.records.people, self.domains.of)

    @cached_property
    def domains(self) -> Domains:
        """Whom questions are about."""
        return Domains(self.database, self.records.ledger)

    @property
    def engine(self) -> Engine:
        """The read side."""
        return self.engine_with(self.encoders)

    def engine_with(self, encoders: Mapping[str, Encoder]) -> Engine:
        """The read side with given encoders."""
        return Engine(self._prober_with(encoders), encoders, self.store)

    @cached_property
    def reading(self) -> str:
        """Digest of how media are read: with other parameters, detectors or identity encoders they are read again.

        The shared encoder reads the evidence only, so that a model can be exchanged without the films. Nothing is
        loaded to know it.
        """
        spaces = sorted(read_description(folder).digest() for folder in packaged_encoders().values())
        parts = (reading.EXTRACTION.digest(), self.settings.face_detector, SPEECH_DETECTOR, *spaces)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @contextmanager
    def scratch_store(self) -> Iterator[MilvusStore]:
        """An index of the same make beside the live one, gone afterwards: for measuring."""
        with TemporaryDirectory(prefix="visavox-") as folder:
            uri = str(Path(folder) / "scratch.db") if self.settings.embedded else self.settings.milvus_uri
            store = MilvusStore(uri, prefix=f"visavox_scratch_{uuid4().hex[:8]}")
            try:
                yield store
            finally:
                try:
                    for name in (SHARED, *packaged_encoders()):  # by name: nothing is loaded to tidy up
                        store.drop_others(name)
                finally:
                    store.close()

    def close(self) -> None:
        """Let go of everything."""
        self.release()
        if "database" in vars(self):
            self.database.dispose()
        if "sandbox" in vars(self):
            self.sandbox.close()


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def installation(
    *,
    consistency: Literal["Strong", "Bounded"] = "Strong",
    observe: Observe | None = None,
    outage: Outage = BRIEF,
) -> Iterator[Installation]:
    """The installation that the environment describes, closed afterwards. Raises SettingsError."""
    opened = Installation(load_settings(), consistency=consistency, observe=observe, outage=outage)
    try:
        yield opened
    finally:
        opened.close()
