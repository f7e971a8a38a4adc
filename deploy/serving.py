"""Starts the search API: the parts of the installation, handed to the application, served by uvicorn."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from deploy.keys import open_keys
from deploy.live import LiveEngine
from deploy.logs import LogFormat, log, start_logging
from deploy.serving_jobs import keeper_of, work_of
from deploy.stopping import StoppableServer, ended_in_time
from deploy.wiring import Installation, installation
from ingest.jobs import JobBoard
from ingest.ledger import RecordsError
from search.api.app import create_app, product_version
from search.api.hosts import LOOPBACK
from search.api.meters import Held, Meters
from search.api.operations import Drain, Operation
from search.api.services import Limits, Services, Work
from search.store import StoreError

# Questions answered at a time: enough for their batches to gain, few enough for each to come soon.
AT_ONCE = 16
ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never listened on by itself
TEST_ADDRESSES = ("192.0.2.1", "2001:db8::1")


@dataclass(frozen=True)
class Listening:
    """Where the server listens and how it tells of itself.

    Args:
        host: address or name to listen on.
        port: 0 for any that is free.
        names: host names and addresses, without port, under which it answers besides loopback's and ``host``.
        loopback: whether nobody but this computer reaches ``host``.
        log_format: how logs are written.
    """

    host: str
    port: int
    names: tuple[str, ...] = ()
    loopback: bool = True
    log_format: LogFormat = LogFormat.AUTO

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"a port is 0 to 65535, got {self.port}")


def run_server(where: Listening, on_listening: Callable[[int, bool], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests then get ``GRACE_SECONDS`` to end.

    An embedded index is owned from the start, so that nobody else can take it between two requests; a
    server may be down at the start and later: requests are refused with 503 until it is back. When another model
    is chosen, answers go over to it without a pause.

    Args:
        where: the address.
        on_listening: told the port once it is bound, and whether a key is needed. Not called where logs are
            JSON: then a line of it says so.

    Raises:
        StoreHeld: another process owns the embedded index. OSError: the port is taken.
    """
    form = start_logging(where.log_format)
    meters = Meters(product_version())
    with (
        _ended_by_sigterm(),
        installation(consistency="Bounded", observe=meters.observe) as opened,
        _listening(where) as listener,
        ExitStack() as taken,
    ):
        opened.sandbox.start()  # its models load beside this process's own
        if opened.settings.embedded or opened.lacks_shared_rows:
            opened.archive.mend()
        keys = open_keys(opened.settings)
        meters.count(_held(opened))
        operation = Operation(meters, Drain(), open_without_keys=where.loopback)
        limits = Limits(folder=opened.settings.home / "uploads")
        live = LiveEngine(opened)
        work = taken.enter_context(work_of(opened, lambda: operation.drain.draining))
        app = create_app(_services(opened, live, work, meters), limits, allowed_hosts(where), keys, operation)
        config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False)
        listener.listen()
        port, needed = listener.getsockname()[1], not where.loopback or keys.exist()
        if form is LogFormat.JSON:
            log().info("listening", host=where.host, port=port, keys_needed=needed, version=product_version())
        else:
            on_listening(port, needed)
        with live.following():
            StoppableServer(config, operation.drain).run(sockets=[listener])
    ended_in_time()
    log().info("stopped")


def allowed_hosts(where: Listening) -> frozenset[str]:
    """Host names and addresses under which a server answers.

    One that listens on every address answers under this computer's own: its name, and the addresses it is reached
    by. Names that others have for it, in DNS or a proxy, must be given.
    """
    names = {*LOOPBACK, *where.names}
    if where.host not in ANY:
        return frozenset(names | {where.host})
    own = {socket.gethostname(), socket.getfqdn()}
    with suppress(OSError):
        own |= {str(address[4][0]) for address in socket.getaddrinfo(socket.gethostname(), None)}
    for outside in TEST_ADDRESSES:
        # a datagram socket that is connected sends nothing, but knows from which address it would
        family = socket.AF_INET6 if ":" in outside else socket.AF_INET
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            own.add(probe.getsockname()[0])
    return frozenset(names | {name for name in own if name and "%" not in name})


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM while networks are loaded ends the process in order, as it does later."""

    def end(_number: int, _frame: object) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _listening(where: Listening) -> Iterator[socket.socket]:
    """A socket that is bound; raises OSError with the address in it."""
    host, port = where.host, where.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named, TCP makes asyncio send at once; without, every answer on a kept-alive connection waits 40 ms for an echo
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen there: {error.strerror}", f"{host}:{port}") from error
        yield listener


def _services(opened: Installation, live: LiveEngine, work: Work, meters: Meters) -> Services:
    return Services(
        engine=live,
        archive=keeper_of(opened),
        people=opened.records.people,
        encoders=live.encoders,
        retired=live.retired,
        board=JobBoard(),
        work=work,
        evidence=opened.records.evidence.file,
        seconds=opened.sandbox.seconds,
        at_once=AT_ONCE,
        ready=_readiness(opened, live),
        outdated=live.outdated,
        observe=meters.observe,
    )


def _held(opened: Installation) -> Callable[[], Held]:
    """Counts what the installation holds, for /metrics; what cannot be counted now is None."""

    def count() -> Held:
        rows = media = failed = people = None
        with suppress(StoreError):
            rows = {name: opened.store.count(encoder.space) for name, encoder in opened.encoders.items()}
        with suppress(RecordsError):
            media, failed = opened.records.ledger.counts()
            people = len(opened.records.people.everyone())
        return Held(rows, media, failed, people)

    return count


def _readiness(opened: Installation, live: LiveEngine) -> Callable[[], Sequence[str]]:
    def missing() -> list[str]:
        try:
            for encoder in live.encoders:
                opened.store.count(encoder.space)
        except StoreError as error:
            return [str(error)]
        outdated = live.outdated()
        return [outdated] if outdated else []

    return missing
