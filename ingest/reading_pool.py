"""Processes of the sandbox as this side sees them: started, asked, watched, killed and replaced."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from ingest.confinement import resident_bytes
from ingest.content import MediaError
from ingest.crossing import NotAsAgreed, pack, receive, send, unpack
from ingest.sandboxed import Reply, Request, Setup

Answer = TypeVar("Answer")

LOADING_SECONDS = 180.0
"""How long a process may load its models."""
LOOK_SECONDS = 0.05
"""How often the memory of a process is looked at."""
SOCKET_BYTES = 2**20
"""Room between two processes: with more of it they take turns less often."""
_MEGABYTE = 1_000_000


class SandboxError(RuntimeError):
    """The sandbox itself does not work, whatever the file: its processes do not start, or it is closed."""


class _LostError(Exception):
    """A process has to be replaced; says what its file did."""


@dataclass(frozen=True)
class Spawn:
    """What processes are started with.

    Args:
        setup: what they are told first.
        environment: all of their variables but those that Python needs.
        files: number of files after which one is replaced.
        answer_bytes: most bytes of arrays in an answer.
    """

    setup: Setup
    environment: Mapping[str, str]
    files: int
    answer_bytes: int


@dataclass(frozen=True, eq=False)
class Task(Generic[Answer]):
    """A file to read.

    Args:
        want: what to find out.
        path: the file.
        seconds: how long it may take.
        make: turns path and reply into the answer; raises NotAsAgreed for one that cannot be true.
    """

    want: Literal["extract", "seconds"]
    path: Path
    seconds: float
    make: Callable[[Path, Reply], Answer]
    future: Future[Answer] = field(default_factory=Future)


class _ReadingProcess:
    """One process that reads files.

    Args:
        spawn: what it is started with.
        closing: set when nobody wants its answer any more.
    """

    def __init__(self, spawn: Spawn, closing: threading.Event) -> None:
        self._spawn, self._closing = spawn, closing
        self._limit = 0  # of its memory, once it has loaded
        self._looked = 0.0  # when that was looked at last
        self._deadline = time.monotonic() + LOADING_SECONDS
        self.files = 0
        self._channel, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._channel.close)
            command = [sys.executable, "-P", "-m", "ingest.reading_process", str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                env=_environment(spawn.environment),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal goes to the parent's group only
            )
            undo.pop_all()
        self.id = self._process.pid

    def load(self) -> None:
        """Wait until its models are loaded. Raises SandboxError."""
        try:
            send(pack(self._spawn.setup), self._put)
            reply = self._reply()
            if reply.outcome != "ready":
                raise SandboxError(f"the process that reads files does not start: {reply.reason}")
        except (_LostError, TimeoutError) as error:
            raise SandboxError(f"the process that reads files does not start ({error}): see its output") from error
        self._limit = resident_bytes(self.id) + self._spawn.setup.memory_bytes

    def ask(self, request: Request, seconds: float) -> Reply:
        """Have a file read. Raises _LostError: the process must be killed."""
        self._deadline = time.monotonic() + seconds
        self.files += 1
        try:
            send(pack(request), self._put)
            return self._reply()
        except TimeoutError as error:
            raise _LostError(f"took longer than {seconds:.0f} s to read: shorten or convert it") from error

    def kill(self) -> None:
        """End it at once; what it holds is not worth waiting for."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.id, signal.SIGKILL)
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)

    def _reply(self) -> Reply:
        try:
            reply: Reply = unpack(receive(self._fill, self._spawn.answer_bytes), Reply)
        except NotAsAgreed as error:
            raise _LostError(f"made the process that read it answer nonsense ({error}): it is hostile") from error
        if reply.outcome == "memory":
            raise _LostError(self._too_much())
        return reply

    def _put(self, data: memoryview) -> None:
        try:
            self._channel.sendall(data)
        except OSError as error:
            raise _LostError(self._ended()) from error

    def _fill(self, buffer: memoryview) -> None:
        """Receive a whole buffer, with an eye on clock and memory."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while buffer:
            here = poll.poll(LOOK_SECONDS * 1000)
            if self._closing.is_set():
                raise SandboxError("the sandbox was closed")
            if time.monotonic() > self._deadline:
                raise TimeoutError
            self._look()
            if here:
                buffer = buffer[self._receive(buffer) :]

    def _look(self) -> None:
        """Look at its memory, now and then. Raises _LostError."""
        if not self._limit or time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if resident_bytes(self.id) > self._limit:
            raise _LostError(self._too_much())

    def _receive(self, buffer: memoryview) -> int:
        try:
            count = self._channel.recv_into(buffer)
        except OSError as error:
            raise _LostError(self._ended()) from error
        if not count:
            raise _LostError(self._ended())
        return count

    def _too_much(self) -> str:
        megabytes = self._spawn.setup.memory_bytes / _MEGABYTE
        return f"needed more than {megabytes:.0f} MB of memory to read: shorten it or scale it down"

    def _ended(self) -> str:
        """How the process ended, as far as it can be told."""
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "reading it made the reading process hang up: the file is damaged or hostile"
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        return f"reading it ended the reading process ({how}): the file is damaged or hostile"


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Only what Python needs to find the same modules, and what is given: no secret of this process."""
    return {"PYTHONPATH": os.pathsep.join(one or os.getcwd() for one in sys.path), "LC_ALL": "C.UTF-8"} | dict(given)


class Pool:
    """Some processes with one queue before them; they start when it is first asked.

    Args:
        spawn: what the processes are started with.
        processes: how many.
    """

    def __init__(self, spawn: Spawn, processes: int) -> None:
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Task[object] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._keepers = [_Keeper(spawn, self._tasks, self._closing) for _ in range(processes)]

    def start(self) -> list[Future[None]]:
        """Start all processes; each future is done when one has loaded. Raises SandboxError if it is closed."""
        with self._lock:
            self._start()
        return [one.started for one in self._keepers]

    def _start(self) -> None:
        if self._closing.is_set():
            raise SandboxError("the sandbox was closed")
        for one in self._keepers:
            if not one.ident:
                one.start()

    def ask(self, task: Task[Answer]) -> Answer:
        """Wait for the answer to a task. Raises MediaError and SandboxError."""
        with self._lock:
            self._start()
            self._tasks.put(task)  # type: ignore[arg-type]
        return task.future.result()

    def children(self) -> tuple[int, ...]:
        """Ids of the processes that live."""
        return tuple(one.child for one in self._keepers if one.child is not None)

    def close(self) -> None:
        """End all processes and their threads."""
        with self._lock:
            self._closing.set()
            for _ in self._keepers:
                self._tasks.put(None)
        for one in self._keepers:
            if one.ident:
                one.join(timeout=15)


class _Keeper(threading.Thread):
    """Keeps one process alive and brings it the tasks of the queue.

    A thread of its own: a process ends with the thread that started it, and threads of a server come and go.
    """

    def __init__(self, spawn: Spawn, tasks: queue.SimpleQueue[Task[object] | None], closing: threading.Event) -> None:
        super().__init__(name="sandbox", daemon=True)
        self._spawn, self._tasks, self._closing = spawn, tasks, closing
        self._process: _ReadingProcess | None = None
        self.started: Future[None] = Future()

    @property
    def child(self) -> int | None:
        """Id of its process, None while there is none."""
        process = self._process
        return process.id if process else None

    def run(self) -> None:
        """Serve until the pool is closed."""
        self._warm()
        while (task := self._tasks.get()) is not None:
            if self._closing.is_set():
                task.future.set_exception(SandboxError("the sandbox was closed"))
            elif task.future.set_running_or_notify_cancel():
                self._serve(task)
        self._kill()

    def _warm(self) -> None:
        """Start a process ahead of its first task; one that does not start is tried again with the task."""
        try:
            self._ready()
        except SandboxError as error:
            if not self.started.done():
                self.started.set_exception(error)
        else:
            if not self.started.done():
                self.started.set_result(None)

    def _serve(self, task: Task[object]) -> None:
        try:
            process = self._ready()
            request = Request(task.want, os.fsencode(task.path).decode("latin-1"))
            task.future.set_result(self._answer(task, process.ask(request, task.seconds)))
        except MediaError as error:
            task.future.set_exception(error)
        except _LostError as error:
            self._kill()
            task.future.set_exception(MediaError(task.path, str(error)))
        except BaseException as error:  # noqa: BLE001 - whoever asked must hear of everything
            self._kill()
            task.future.set_exception(error)
        if self._process and self._process.files >= self._spawn.files:
            self._kill()
        if not self._process and not self._closing.is_set():
            self._warm()

    def _answer(self, task: Task[object], reply: Reply) -> object:
        """What a reply means for a task. Raises MediaError and _LostError."""
        if reply.outcome == "found":
            try:
                return task.make(task.path, reply)
            except NotAsAgreed as error:
                raise _LostError(f"made the process that read it answer nonsense ({error}): it is hostile") from error
        reason = "".join(one if one.isprintable() else " " for one in reply.reason)
        if reply.outcome == "refused":
            raise MediaError(task.path, reason)
        raise _LostError(f"cannot be processed ({reason}): leave it out, or convert it and try again")

    def _ready(self) -> _ReadingProcess:
        if self._process is None:
            try:
                self._process = _ReadingProcess(self._spawn, self._closing)
                self._process.load()
            except OSError as error:
                self._kill()
                raise SandboxError(f"the process that reads files does not start: {error}") from error
            except BaseException:
                self._kill()
                raise
        return self._process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None
