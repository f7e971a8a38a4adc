"""Who does the work: this process, or workers; and what a worker does with a task."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from deploy import reading
from deploy.measuring import NoModel, take
from deploy.measuring_apart import Expected, MeasuringFailed, kind_of, take_apart
from deploy.settings import Settings, load_settings
from deploy.wiring import OUTAGE_SECONDS, WORKER_PATIENCE_SECONDS, Installation, Outage
from encoders.devices import count_devices, device_of
from encoders.encoder import EncoderError
from encoders.space import SpaceMismatch
from ingest.book import Book
from ingest.flow import Intake, Ways, ingest_work
from ingest.ledger import Ledger, RecordsError, open_database
from ingest.parts import Parts
from ingest.queues import ALL_QUEUES, InProcessQueue, JobQueue
from ingest.runner import LEASE_SECONDS, Held, Runner, Work
from ingest.shards import SHARD_SECONDS, plan
from ingest.tasks import NewJob, NewTask, Outcome, Queue, TaskState
from ingest.worker import CeleryQueue, Making, child_number
from search.answers import EnrolAnswer, Refusal
from search.archive import Archive
from search.evaluation import NothingToMeasure
from search.intake import Recogniser
from search.measurement import EVALUATE, PROTOCOL, Measurement
from search.people import UnknownPerson
from search.points import PointsError, SeenInTraining
from search.protocols import ProtocolError
from search.store import StoreError

OUTAGES = (StoreError, RecordsError, EncoderError, OSError)
"""What is no file's fault: the index, the records, a model or the disk that cannot be used now."""
ENROL = "enrol"
"""The kind of jobs that enrol, and of their only task."""
SOMEBODY_WAITS = 1000
"""Priority of what somebody waits for."""
FINAL_OF_EVALUATION = (
    EncoderError, NothingToMeasure, NoModel, PointsError, ProtocolError, SeenInTraining, SpaceMismatch,
)  # fmt: skip
FINAL_OF_ENROLMENT = (EncoderError, UnknownPerson, ValueError)
HANGS = 70
"""Exit code of a child whose task showed no progress."""


def queue_of(opened: Installation, notice: Callable[[str], None] | None = None) -> JobQueue:
    """Where jobs are done: by workers if there is a broker, else by whoever follows them in this process.

    Args:
        opened: the installation.
        notice: told what a person should know meanwhile, such as that no worker is listening.
    """
    book = Book(opened.database)
    if opened.settings.broker_url:
        return CeleryQueue(opened.settings.broker_url, book, notice)
    work = ingest_work(ways_of(opened, lambda: opened.archive))
    return InProcessQueue(book, Runner(book, work, OUTAGES, waits=False), notice)


def ways_of(
    opened: Installation,
    intake: Callable[[], Intake],
    shard_seconds: float = SHARD_SECONDS,
) -> Ways:
    """What the tasks of ingest are done with in this process; nothing is loaded yet."""
    home = opened.settings.home
    return Ways(
        desk=Recogniser(Ledger(opened.database), opened.reading),
        plan=partial(plan, settings=reading.EXTRACTION.faces, shard_seconds=shard_seconds),
        extract=lambda: opened.extractor.extract,
        reader=lambda: opened.extractor,
        intake=intake,
        parts=Parts(home / "parts"),
        home=home,
    )


def worker_making(queues: tuple[Queue, ...] = ALL_QUEUES) -> Making:
    """What a worker of the installation that the environment describes is made of."""
    return Making(make_book, make_runner, queues)


def children_of(settings: Settings) -> int:
    """How many children a worker has unless somebody says: one for each GPU, or one."""
    return 1 if settings.embedded else count_devices(settings.device)


def make_book() -> Book:
    """The book of work. Raises RecordsError."""
    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return Book(open_database(settings.database_url))


def make_runner(lease: float = LEASE_SECONDS, shard_seconds: float = SHARD_SECONDS) -> Runner:
    """What a worker's child does with tasks. Raises RecordsError.

    Args:
        lease: for which a task is nobody else's after this child was last heard of, seconds.
        shard_seconds: longest piece of a film that is one task.
    """
    settings = load_settings()
    hands = _Hands(replace(settings, device=device_of(settings.device, child_number())), shard_seconds)
    book = Book(hands.opened.database)
    work = {kind: hands.at_work(what) for kind, what in hands.work().items()}
    return Runner(book, work, OUTAGES, lease, on_idle=hands.rest, on_stall=lambda: os._exit(HANGS))


class Refused(RuntimeError):
    """A job came to nothing, for a reason that trying again does not change.

    Args:
        kind: of the reason, one word.
        reason: for people to read.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def enrolment_job(name: str, paths: Sequence[Path], person: str | None = None) -> NewJob:
    """The job of enrolling files under a name, or of a known person's id; somebody waits for it."""
    told = {"name": name, "person": person, "paths": [str(path.absolute()) for path in paths]}
    return NewJob(
        ENROL, priority=SOMEBODY_WAITS, asked={"files": len(paths)}, tasks=[NewTask(ENROL, Queue.INTERACTIVE, told)]
    )


def outcome_of(queue: JobQueue, job: str, patience: float = math.inf) -> dict[str, Any]:
    """Wait for a job that has one result, and give it.

    Args:
        queue: where it was submitted.
        job: its id.
        patience: seconds to wait at most.

    Raises:
        Refused: it came to nothing. TimeoutError: it is not done in time. RecordsError: see there.
    """
    until = time.monotonic() + patience
    for page in queue.follow(job):  # noqa: B007 - the last one is told of below
        if time.monotonic() > until:
            raise TimeoutError(f"job {job} is not done after {patience:.0f} s")
    told = dict(page.result or {})
    if page.state != "done":
        kind = told.get("error", {}).get("type", "job_failed")
        raise Refused(kind, page.error or f"job {job} is {page.state}")
    return told


def enrol_by_workers(
    queue: JobQueue, name: str, paths: Sequence[Path], person: str | None = None, patience: float = math.inf
) -> EnrolAnswer:
    """Have files enrolled by a worker and wait. Raises Refused, TimeoutError, RecordsError, BrokerUnavailable."""
    job = queue.submit(enrolment_job(name, paths, person))
    told = outcome_of(queue, job, patience)
    given = {str(path.absolute()): str(path) for path in paths}
    refused = [Refusal(given.get(one["path"], one["path"]), one["reason"]) for one in told["refused"]]
    return EnrolAnswer(told["name"], [given.get(path, path) for path in told["added"]], refused, told["warnings"])


def _answering(work: Callable[[Held], dict[str, Any]], final: tuple[type[Exception], ...]) -> Work:
    """A task whose result is the job's; errors that trying again does not change are told at once."""

    def answer(held: Held) -> Outcome:
        try:
            return Outcome(result=work(held))
        except final as error:
            kind = error.kind if isinstance(error, MeasuringFailed) else kind_of(error)
            return Outcome(TaskState.FAILED, reason=str(error), result={"error": {"type": kind}})

    return answer


def evaluating(opened: Callable[[], Installation], *, lists_apart: bool = False) -> Work:
    """What to do with a measurement, in an installation that is asked for when it is needed.

    Args:
        opened: gives the installation.
        lists_apart: whether published lists are measured on in a process of their own.
    """

    def measure(held: Held) -> dict[str, Any]:
        asked = Measurement.from_json(held.claim.arguments)
        if lists_apart and asked.on == PROTOCOL:
            return take_apart(asked, opened().settings, Expected(FINAL_OF_EVALUATION, OUTAGES), held.check)
        return take(opened(), asked, lambda *_: held.check())

    return _answering(measure, (*FINAL_OF_EVALUATION, MeasuringFailed))


def _enrol(archive: Archive, held: Held) -> dict[str, Any]:
    told = held.claim.arguments
    paths = [Path(path) for path in told["paths"]]
    held.confirm()
    if told["person"]:
        return asdict(archive.enrol_known(told["person"], paths))
    return asdict(archive.enrol(told["name"], paths))


class _Hands:
    """One child's installation: models loaded once, and anew when another one was chosen.

    An embedded index is let go after each task, so that others may have it.
    """

    def __init__(self, settings: Settings, shard_seconds: float) -> None:
        self._shard_seconds = shard_seconds
        self._waiting = Outage(OUTAGE_SECONDS, logging.getLogger("visavox").warning)
        self.opened = self._open(settings)
        self._mended: object = None  # the encoders with which the index was
        self._written = False

    def _open(self, settings: Settings) -> Installation:
        return Installation(settings, patience=WORKER_PATIENCE_SECONDS, outage=self._waiting)

    def work(self) -> dict[str, Work]:
        """What to do, by kind of task."""
        ways = ways_of(self.opened, self._archive, self._shard_seconds)
        return ingest_work(ways) | {
            EVALUATE: evaluating(self._current),
            ENROL: _answering(lambda held: _enrol(self._archive(), held), FINAL_OF_ENROLMENT),
        }

    def at_work(self, work: Work) -> Work:
        """Let go of an embedded index after the work."""

        def done(held: Held) -> Outcome:
            try:
                return work(held)
            finally:
                if self.opened.settings.embedded:
                    self.rest()
                    self.opened.release()

        return done

    def rest(self) -> None:
        """Make what was written quick to search: often would be slow, and it is safe without."""
        if self._written:
            self._written = False
            self.opened.archive.flush()

    def _current(self) -> Installation:
        """The installation, with the model that is chosen now."""
        self.opened.renew()
        return self.opened

    def _archive(self) -> Archive:
        archive = self._current().archive
        if self._mended is not self.opened.encoders:
            archive.mend()
            self._mended = self.opened.encoders
        self._written = True
        return archive
