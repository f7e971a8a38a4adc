"""Workers on Celery with Redis between: messages wake them up, the book (:mod:`ingest.book`) says what to do.

A message is a *bell*: it says that something waits in a queue, and whose child hears it claims the best task there
is. So nothing is lost with a message, and nothing is done twice because of one:

* A pool child that dies gives its task back at once: the main process sees it and counts an attempt.
* A worker that is killed, with all its children or without them, is not heard of any more; any other worker lets
  its task wait again as soon as the lease has run out. A child whose worker is gone ends itself.
* Redis that is down, or comes back empty, costs bells only: a worker with an idle child looks every few seconds
  whether something waits, and rings for itself.

Children are *spawned*: neither CUDA nor gRPC survives a fork. Even one child is a child, never the ``solo`` pool,
so that the main process outlives a file that kills its reader. The main process loads no network.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from billiard import current_process
from celery import Celery, bootsteps, signals
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from ingest.book import Book
from ingest.jobpage import JobPage, JobPages
from ingest.ledger import RecordsError
from ingest.queues import ALL_QUEUES, PAGE_SECONDS
from ingest.queues import BrokerUnavailable as BrokerUnavailable
from ingest.runner import LEASE_SECONDS, Runner
from ingest.tasks import NewJob, Queue

_LOG = logging.getLogger("visavox")

TASK = "visavox.work"
REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")
NO_WORKER = "no worker is listening: start one with `visavox worker`"

# A queue that holds as many bells as this wakes everybody up already.
MOST_BELLS = 32
# A job this long without any news asks whether there is a worker at all.
SILENCE_SECONDS = 3.0
PING_SECONDS = 1.0
# Far above any model's loading time: a child that is killed while it loads would be killed for ever.
CHILD_START_SECONDS = 300.0
SOFT_SHUTDOWN_SECONDS = 8.0
# For so long a child goes on with the next task without being woken up.
ROUND_SECONDS = 20.0
# A child that has been at one task for so long hangs where it cannot even say so.
HARD_SECONDS = 3 * 3600.0
SOCKET_SECONDS = 30.0
CONNECT_SECONDS = 3.0
HEALTH_SECONDS = 15
_ORPHAN_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Args:
        lease: after this a task whose worker has vanished goes to another one.
        watch: between two looks of a worker whether a lease has run out, or something waits for an idle child.
    """

    lease: float = LEASE_SECONDS
    watch: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.watch <= self.lease:
            raise ValueError(f"limits need 0 < watch <= lease, else a task waits for nothing, got {self}")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Making:
    """What a worker is made of: functions of a module, so that a spawned process can import them.

    Args:
        make_book: which tasks there are; called once in every process.
        make_runner: does them; called once in every child, at its first task.
        queues: of which tasks are taken.
        limits: how long things may take.
    """

    make_book: Callable[[], Book]
    make_runner: Callable[[], Runner]
    queues: tuple[Queue, ...] = ALL_QUEUES
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if not self.queues:
            raise ValueError(f"a worker takes tasks of some queue: {', '.join(ALL_QUEUES)}")


class _App(Celery):  # type: ignore[misc]
    """A Celery application that a spawned child builds again from what it was made of."""

    def __init__(self, broker_url: str, making: Making | None) -> None:
        super().__init__("visavox", broker=broker_url, set_as_current=False)
        self.made_of = (broker_url, making)

    def __reduce__(self) -> tuple[Any, ...]:
        return make_app, self.made_of


def make_app(broker_url: str, making: Making | None = None) -> Celery:
    """The Celery application, for clients and workers alike. Nothing is connected or loaded yet.

    Args:
        broker_url: Redis, as ``redis://[:password@]host:port/number``.
        making: what a worker is made of; None for a client, which only rings.

    Raises:
        ValueError: the broker is not Redis.
    """
    if not broker_url.startswith(REDIS_SCHEMES):
        raise ValueError(
            f"the broker must be Redis ({', '.join(REDIS_SCHEMES)}…), got {maybe_sanitize_url(broker_url)}: "
            "without one leave it unset, and files are read in this process"
        )
    for chatty in ("celery.worker.strategy", "celery.app.trace"):  # a line or two for every bell
        logging.getLogger(chatty).setLevel(logging.WARNING)
    app = _App(broker_url, making)
    app.conf.update(_settings())
    if making is not None:
        app.steps["consumer"].add(_Watch)
        runner_of_process, book_of_process = cache(making.make_runner), cache(making.make_book)
        app.book = book_of_process

        def work(task: Any) -> None:  # noqa: ANN401 - Celery is untyped
            end_with_parent()
            until = time.monotonic() + ROUND_SECONDS
            # on with the next at once: a bell rung now might be heard by a worker that is busy
            while runner_of_process().run_one(making.queues, task.request.id) and time.monotonic() < until:
                ring_for_all(app, book_of_process())
            ring_for_all(app, book_of_process())
    else:

        def work(task: Any) -> None:  # noqa: ANN401
            raise ValueError(f"{task.name} was sent to an application made for a client")

    # lazy tasks would bind to another application in a spawned child
    app.task(work, name=TASK, bind=True, shared=False, lazy=False, ignore_result=True)
    return app


def _settings() -> dict[str, Any]:
    """Settings of Celery: bells are acknowledged when they are heard, and every wait is finite."""
    sockets = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_SECONDS,
    }
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": Queue.ENCODE.value,
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_time_limit": HARD_SECONDS,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # a bell is for who is idle
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": CHILD_START_SECONDS,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS,
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": sockets,
        "broker_connection_timeout": CONNECT_SECONDS,
        "broker_connection_retry_on_startup": True,
        # a worker waits for Redis as long as it takes
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3},
    }


def ring(app: Celery, queue: Queue, times: int = 1) -> None:
    """Wake up whoever takes tasks of a queue, unless that has been done often enough. Raises what Redis raises."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=CONNECT_SECONDS)
        there = int(connection.default_channel.client.llen(queue.value))
        for _ in range(min(times, MOST_BELLS - there)):
            app.tasks[TASK].apply_async(queue=queue.value, connection=connection)


def ring_for_all(app: Celery, book: Book, queues: Sequence[Queue] = ALL_QUEUES, times: int = 1) -> None:
    """Ring in every queue in which something waits. What cannot be rung for is found by whoever is idle."""
    with suppress(OperationalError, RedisError, OSError, RecordsError):
        for queue in queues:
            if waiting := book.waiting([queue]):
                ring(app, queue, min(times, waiting))


@cache
def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone: nobody would hear of it any more."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def child_number() -> int:
    """Which of its worker's children this process is, from 0; one that takes a dead one's place has its number."""
    return int(getattr(current_process(), "index", 0))


class _Watch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Looks, in a worker's main process, after leases that ran out and tasks that nobody was woken up for."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401 - Celery is untyped
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Called by Celery when the consumer is connected."""
        making: Making = consumer.app.made_of[1]
        self._timer = consumer.timer.call_repeatedly(making.limits.watch, self._look, (consumer.app, consumer, making))

    def stop(self, consumer: Any) -> None:  # noqa: ANN401
        """Called by Celery when the connection is lost or the worker stops."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _look(app: Any, consumer: Any, making: Making) -> None:  # noqa: ANN401
        with suppress(RecordsError):  # away for a moment, like everything
            book: Book = app.book()
            book.take_back()
            idle = consumer.pool.num_processes - len(worker_state.reserved_requests)
            if idle > 0:
                ring_for_all(app, book, making.queues, idle)


def _died(app: Any) -> Callable[..., None]:  # noqa: ANN401
    """Notes, in a worker's main process, that a child died on its task."""

    def note(task_id: str = "", exception: BaseException | None = None, **_rest: object) -> None:
        reason = f"reading it ended the process that read it ({exception}): leave it out, or convert it and try again"
        try:
            stopping = worker_state.should_stop is not None or worker_state.should_terminate is not None
            loss = app.book().died(task_id, reason, counts=not stopping)
        except RecordsError:
            _LOG.warning("a child died while the records did not answer: its task waits for its lease to run out")
        else:
            if loss is not None:
                _LOG.warning("a child died on a task of kind %s%s", loss.kind, ": given up" if loss.given_up else "")

    return note


class CeleryQueue:
    """Jobs that workers do; they must see the files under the same paths, and the same records.

    Args:
        app: from :func:`make_app`, or the URL of the broker.
        book: which tasks there are.
        notice: told, while a job is followed, that there is nobody to work.
    """

    def __init__(self, app: Celery | str, book: Book, notice: Callable[[str], None] | None = None) -> None:
        self._app = make_app(app) if isinstance(app, str) else app
        self._book = book
        self._pages = JobPages(book.database)
        self._notice = notice
        self._url = str(maybe_sanitize_url(self._app.conf.broker_url))

    def submit(self, job: NewJob) -> str:
        """See JobQueue.submit. Raises BrokerUnavailable, and then takes nothing, when there is no Redis."""
        with self._translated():
            self._check()
        identity = self._book.open_job(job)
        self.wake()
        return identity

    def wake(self) -> None:
        """Wake workers up: something may be to be done. Without Redis they look for themselves."""
        ring_for_all(self._app, self._book, times=MOST_BELLS)

    def follow(self, job: str) -> Iterator[JobPage]:
        """See JobQueue.follow. Ctrl-C leaves the job to the workers."""
        last, silent_since, said, obstacle = None, time.monotonic(), False, None
        while True:
            page = self._pages.page(job)
            yield page
            if page.finished is not None:
                return
            if page.obstacle != obstacle:
                obstacle = page.obstacle
                if obstacle is not None and self._notice is not None:
                    self._notice(f"waiting: {obstacle}")
            if page.counts != last:
                last, silent_since, said = page.counts, time.monotonic(), False
            elif not said and time.monotonic() - silent_since > SILENCE_SECONDS:
                said = self._say_if_nobody_listens()
                silent_since = time.monotonic()
            time.sleep(PAGE_SECONDS)

    def listening(self) -> bool:
        """Whether any worker takes files. Raises BrokerUnavailable."""
        with self._translated():
            answers = self._app.control.inspect(timeout=PING_SECONDS).active_queues() or {}
        return any(queue["name"] == Queue.ENCODE for queues in answers.values() for queue in queues)

    def _say_if_nobody_listens(self) -> bool:
        try:
            problem = None if self.listening() else NO_WORKER
        except BrokerUnavailable as error:
            problem = f"{error}; the job is kept, and goes on when it is back"
        if problem is not None and self._notice is not None:
            self._notice(problem)
        return problem is not None

    def _check(self) -> None:
        """Fail at once, not in the middle, when there is no Redis."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=CONNECT_SECONDS)
            connection.default_channel.client.ping()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"the broker {self._url} does not answer ({error}): start Redis there, or unset the broker "
                "to read files in this process"
            ) from error


def run_worker(app: Celery, concurrency: int = 1) -> int:
    """Run a worker in this process until it is told to stop; gives its exit code.

    The first SIGTERM or Ctrl-C lets running tasks finish; SIGQUIT or a second one gives them a few seconds, then
    ends them, and they wait again. A worker without Redis keeps trying to reach it.

    Args:
        app: from :func:`make_app`, with making.
        concurrency: child processes, one for each GPU. Each loads its own models; an embedded index allows one.
    """
    making: Making = app.made_of[1]
    signals.task_failure.connect(_died(app), weak=False)
    worker = app.Worker(
        # two workers of one machine need two names
        hostname=f"visavox-{os.getpid()}@{socket.gethostname()}",
        queues=[queue.value for queue in making.queues], concurrency=concurrency, pool="prefork", loglevel="INFO",
        without_gossip=True, without_mingle=True,
    )  # fmt: skip
    worker.start()
    return int(worker.exitcode or 0)
