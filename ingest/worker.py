"""Jobs on Celery workers with Redis between: at least once, and no task lost with a killed process.

What is promised, and by what:

* A pool child that dies gives its task back at once, and a task that keeps killing its child ends as a
  failed report (``task_retry_on_worker_lost`` with few retries).
* A worker that is killed gives its tasks back after :attr:`Limits.lease` seconds. Redis alone would wait
  for the visibility timeout, which must outlast the longest task; so every worker renews the lease of the
  tasks it holds, and any worker puts those back that nobody renews.
* A task may therefore run twice. That changes nothing: keys name the work.

Children are *spawned*: neither CUDA nor gRPC survives a fork. Even one child is a child, never the
``solo`` pool, so that the main process answers pings and renews leases while a film is being read.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, bootsteps
from celery.result import AsyncResult, denied_join_result
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from ingest.jobs import FileReport, Handler

TASK = "visavox.ingest_file"
QUEUE = "encode"
REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")
NO_WORKER = "no worker is listening: start one with `visavox worker`"

# Tasks a run keeps with the workers at a time: enough to keep many busy, few enough for Redis' memory.
OUTSTANDING = 500
POLL_SECONDS = 0.1
# A run this long without any report asks whether there is a worker at all.
SILENCE_SECONDS = 3.0
PING_SECONDS = 1.0
RESULT_SECONDS = 24 * 3600.0
# Far above any model's loading time: a child that is killed while it loads would be killed for ever.
CHILD_START_SECONDS = 300.0
SOFT_SHUTDOWN_SECONDS = 8.0
SOCKET_SECONDS = 30.0
CONNECT_SECONDS = 3.0
HEALTH_SECONDS = 15


class BrokerUnavailable(Exception):
    """Redis does not answer; the message names its URL without the password."""


@dataclass(frozen=True)
class Limits:
    """How long a task may take and how it comes back, in seconds.

    Args:
        soft: after this the task is told to stop, and reports its file as failed.
        hard: after this its process is killed.
        visibility: after this Redis hands a task that nobody has finished to somebody else.
        lease: after this a task whose worker has vanished goes to another one.
        retries: runs after the first, when a run ends in an error that is not the file's.
    """

    soft: float = 3 * 3600.0
    hard: float = 3 * 3600.0 + 300.0
    visibility: float = 4 * 3600.0
    lease: float = 30.0
    retries: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.soft < self.hard < self.visibility:
            raise ValueError(f"limits need 0 < soft < hard < visibility, else tasks run twice, got {self}")
        if self.lease < 3 or self.retries < 0:
            raise ValueError(f"limits need a lease of at least 3 s and no negative retries, got {self}")

    @property
    def beat(self) -> float:
        """Seconds between renewals of a lease, and before the first retry."""
        return self.lease / 6

    def retry_delay(self, retries: int) -> float:
        """Seconds before the next run; below the lease, which is not renewed while a task only waits."""
        return min(self.beat * 2.0**retries, self.lease * 2 / 3)


DEFAULT_LIMITS = Limits()


class _App(Celery):  # type: ignore[misc]
    """A Celery application that a spawned child builds again from what it was made of."""

    def __init__(self, broker_url: str, make_handler: Callable[[], Handler] | None, limits: Limits) -> None:
        super().__init__("visavox", broker=broker_url, backend=broker_url, set_as_current=False)
        self.made_of = (broker_url, make_handler, limits)

    def __reduce__(self) -> tuple[Any, ...]:
        return make_app, self.made_of


def make_app(
    broker_url: str, make_handler: Callable[[], Handler] | None = None, limits: Limits = DEFAULT_LIMITS
) -> Celery:
    """The Celery application, for clients and workers alike. Nothing is connected or loaded yet.

    Args:
        broker_url: Redis, as ``redis://[:password@]host:port/number``.
        make_handler: makes what reads a file, once per worker process, at its first task. A function of a
            module, so that a spawned process can import it. None for a client, which runs no task.
        limits: how long tasks may take.

    Raises:
        ValueError: the broker is not Redis; the others lose tasks when a worker is killed.
    """
    if not broker_url.startswith(REDIS_SCHEMES):
        raise ValueError(
            f"the broker must be Redis ({', '.join(REDIS_SCHEMES)}…), got {maybe_sanitize_url(broker_url)}: "
            "other brokers lose tasks; without Redis leave it unset and files are read in this process"
        )
    app = _App(broker_url, make_handler, limits)
    app.conf.update(_delivery(limits) | _connection(limits))
    app.steps["consumer"].add(_Lease)
    handler_of_process = cache(make_handler or _no_handler)

    def ingest_file(task: Any, path: str, archive: str) -> dict[str, Any]:  # noqa: ANN401 - Celery is untyped
        return _attempt(task, handler_of_process, path, archive).to_json()

    # lazy tasks would bind to another application in a spawned child
    app.task(
        ingest_file, name=TASK, bind=True, shared=False, lazy=False,
        max_retries=limits.retries, default_retry_delay=limits.beat,
    )  # fmt: skip
    return app


def _no_handler() -> Handler:
    raise ValueError("this application was made for a client: a worker's needs make_handler")


def _attempt(task: Any, handler_of_process: Callable[[], Handler], path: str, archive: str) -> FileReport:  # noqa: ANN401
    try:
        return handler_of_process()(Path(path), archive)
    except SoftTimeLimitExceeded:
        return FileReport.failed(path, "takes too long to read: cut it into shorter files")
    except Exception as error:  # the edge of the process: whatever it is is retried, then told
        limits: Limits = task.app.made_of[2]
        if task.request.retries >= limits.retries:
            return FileReport.failed(path, f"{type(error).__name__}: {error}")
        delay = limits.retry_delay(task.request.retries)
        raise task.retry(exc=error, countdown=delay) from error


def _delivery(limits: Limits) -> dict[str, Any]:
    """Settings by which a task is done at least once, and a poisonous one a few times only."""
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": QUEUE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_soft_time_limit": limits.soft,
        "task_time_limit": limits.hard,
        "worker_prefetch_multiplier": 1,
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": CHILD_START_SECONDS,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS,
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "result_expires": RESULT_SECONDS,
    }


def _connection(limits: Limits) -> dict[str, Any]:
    """Settings of the connections: everything finite, and visibility in all three places that have it."""
    visibility = {"visibility_timeout": limits.visibility}
    sockets = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_SECONDS,
    }
    # abandoned tasks are swept every second: by default only every hundred seconds
    sweep = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1, "unacked_mutex_expire": 10}
    retry = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 0.5}
    return {
        "broker_transport_options": visibility | sockets | sweep,
        "result_backend_transport_options": visibility | {"retry_policy": retry},
        "visibility_timeout": limits.visibility,
        "redis_socket_timeout": SOCKET_SECONDS,
        "redis_socket_connect_timeout": CONNECT_SECONDS,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": HEALTH_SECONDS,
        "broker_connection_timeout": CONNECT_SECONDS,
        "broker_connection_retry_on_startup": True,
        # a worker waits for Redis as long as it takes
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": retry,
    }


class _Lease(bootsteps.StartStopStep):  # type: ignore[misc]
    """Renews the tasks this worker holds, and frees those that nobody renews."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401 - Celery is untyped
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Called by Celery when the consumer is connected."""
        limits: Limits = consumer.app.made_of[2]
        self._timer = consumer.timer.call_repeatedly(limits.beat, self._renew, (consumer, limits.lease))

    def stop(self, consumer: Any) -> None:  # noqa: ANN401
        """Called by Celery when the connection is lost or the worker stops."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _renew(consumer: Any, lease: float) -> None:  # noqa: ANN401
        """Kombu keeps the time of delivery of every unfinished task; that time is the lease."""
        channel = consumer.task_consumer.channel
        held = [request.message.delivery_tag for request in worker_state.reserved_requests]
        with channel.conn_or_acquire() as redis:
            index, now = channel.unacked_index_key, time.time()
            if held:
                redis.zadd(index, dict.fromkeys(held, now), xx=True)
            abandoned = redis.zrangebyscore(index, 1, now - lease)
            if abandoned:
                # time 0 is long past visibility: kombu's own sweep puts them back within a second
                redis.zadd(index, dict.fromkeys(abandoned, 0), xx=True)


class CeleryQueue:
    """A job queue whose files are read by workers; they must see the files under the same paths.

    Args:
        app: from :func:`make_app`, or the URL of the broker.
        notice: told, while a run waits, that there is nobody to work.
    """

    def __init__(self, app: Celery | str, notice: Callable[[str], None] | None = None) -> None:
        self._app = make_app(app) if isinstance(app, str) else app
        self._notice = notice
        self._url = str(maybe_sanitize_url(self._app.conf.broker_url))

    def run(self, paths: Sequence[Path], archive: str) -> Iterator[FileReport]:
        """Have files read and give a report as each finishes. Waits for workers as long as it takes.

        Ctrl-C leaves what was submitted (at most 500 files ahead of the reports) to the workers.

        Raises:
            BrokerUnavailable: Redis does not answer, now or later; within seconds.
        """
        waiting = deque(paths)
        outstanding: dict[str, tuple[Path, AsyncResult]] = {}
        silence = _Silence(self)
        self._check()
        while waiting or outstanding:
            with self._translated():
                while waiting and len(outstanding) < OUTSTANDING:
                    result = self._send(waiting[0], archive, uuid.uuid4().hex)
                    outstanding[result.id] = (waiting.popleft(), result)
                reports = self._finished(outstanding)
            yield from reports
            if not reports and outstanding:
                silence.wait()
            else:
                silence.over()

    def submit(self, paths: Sequence[Path], archive: str) -> str:
        """Have files read without waiting; gives the job id, with which the ids of its tasks begin.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        self._check()
        job = uuid.uuid4().hex
        with self._translated():
            for number, path in enumerate(paths):
                self._send(path, archive, f"{job}-{number}")
        return job

    def listening(self) -> bool:
        """Whether any worker takes files. Raises BrokerUnavailable."""
        with self._translated():
            answers = self._app.control.inspect(timeout=PING_SECONDS).active_queues() or {}
        return any(queue["name"] == QUEUE for queues in answers.values() for queue in queues)

    def say(self, message: str) -> None:
        """Pass a message on to whoever wants to know."""
        if self._notice is not None:
            self._notice(message)

    def _send(self, path: Path, archive: str, identity: str) -> AsyncResult:
        # results are polled; Celery would subscribe to each as well, and nobody would read what it hears
        with denied_join_result():
            # a worker has a working folder of its own
            arguments = (str(path.absolute()), archive)
            return self._app.tasks[TASK].apply_async(arguments, queue=QUEUE, task_id=identity)

    def _finished(self, outstanding: dict[str, tuple[Path, AsyncResult]]) -> list[FileReport]:
        """Take the finished ones out and give their reports."""
        reports = []
        for identity, (path, result) in list(outstanding.items()):
            if result.ready():
                reports.append(_read(path, result))
                result.forget()
                del outstanding[identity]
        return reports

    def _check(self) -> None:
        """Fail at once, not in the middle, when there is no Redis."""
        with self._translated(), self._app.connection_for_write() as connection:
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


class _Silence:
    """Waiting without news: in small steps, and once per silence with a word if nobody is at work."""

    def __init__(self, queue: CeleryQueue) -> None:
        self._queue = queue
        self._ask_at = time.monotonic() + SILENCE_SECONDS
        self._said = False

    def over(self) -> None:
        """There was news."""
        self._ask_at, self._said = time.monotonic() + SILENCE_SECONDS, False

    def wait(self) -> None:
        """Sleep a little."""
        time.sleep(POLL_SECONDS)
        if self._said or time.monotonic() < self._ask_at:
            return
        if not self._queue.listening():
            self._queue.say(NO_WORKER)
            self._said = True
        self._ask_at = time.monotonic() + 10 * SILENCE_SECONDS


def _read(path: Path, result: AsyncResult) -> FileReport:
    """A finished task's report, under the name the caller gave the file."""
    if result.successful():
        return replace(FileReport.from_json(result.result), path=str(path))
    return FileReport.failed(path, f"its worker ended with {type(result.result).__name__}: {result.result}")


def run_worker(app: Celery, queues: Sequence[str] = (QUEUE,), concurrency: int = 1) -> int:
    """Run a worker in this process until it is told to stop; gives its exit code.

    The first SIGTERM or Ctrl-C lets running tasks finish; SIGQUIT or a second one gives them a few seconds,
    then puts them back. A worker without Redis keeps trying to reach it.

    Args:
        app: from :func:`make_app`, with a handler.
        queues: names of the queues to take tasks from.
        concurrency: child processes. Each loads its own models; an embedded index allows one.
    """
    worker = app.Worker(
        # two workers of one machine need two names
        hostname=f"visavox-{os.getpid()}@{socket.gethostname()}",
        queues=list(queues), concurrency=concurrency, pool="prefork", loglevel="INFO",
        without_gossip=True, without_mingle=True,
    )  # fmt: skip
    worker.start()
    return int(worker.exitcode or 0)
