"""``status``, ``serve``, ``worker``, ``demo``: running an installation."""

from __future__ import annotations

import ipaddress
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.keys import key_errors_translated
from deploy.cli.output import Json, NothingDone, UsageError, answer, console, errors_translated, progress_console

if TYPE_CHECKING:
    from ingest.tasks import Queue

LOG_FORMATS = ("auto", "json", "text")
WITH_KEYS = "every request needs a key (Authorization: Bearer KEY); `visavox keys` makes and revokes them"
WITHOUT_KEYS = "no key exists: whoever reaches this port may ask; the first `visavox keys create` ends that"


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for command in (status, serve, worker, demo):
        app.command()(command)


def status(json: Json = False) -> None:
    """Say what this installation holds."""
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            held = opened.archive.status()

    def show() -> None:
        for name, space in held.spaces.items():
            console.print(f"{name}: {space.rows} rows (keys {space.keys_sha256[:12]})")
        console.print(f"{held.media} media, {held.failed} failed files, {held.people} people")

    answer(held, json, show)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback it needs an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name or address, without port, under which others reach it. Repeatable."),
    ] = None,
    log_format: Annotated[
        str, typer.Option(help="How logs are written: json, text, or auto (text on a terminal).")
    ] = "auto",
) -> None:
    """Answer over HTTP: /docs shows how.

    Beyond loopback everybody needs a key (`visavox keys create`), and on loopback too once there is one. It speaks
    plain HTTP: TLS is the business of a reverse proxy in front, whose host name is given with --name.
    """
    if log_format not in LOG_FORMATS:
        raise UsageError(f"--log-format is one of {', '.join(LOG_FORMATS)}, not {log_format!r}")
    names = tuple(name or ())
    for one in names:
        if not one or any(mark in one for mark in "/@ ") or (":" in one and not _is_address(one)):
            raise UsageError(f"--name {one!r} is no host name: give it without scheme, port and path")
    loopback = _is_loopback(host)
    if not loopback:
        _need_key(host)
    with errors_translated():
        from deploy.logs import LogFormat
        from deploy.serving import Listening, run_server

        def tell(bound: int, needed: bool) -> None:
            shown = f"[{host}]" if ":" in host else host
            progress_console.print(f"visavox listens on http://{shown}:{bound} (documentation: /docs)")
            progress_console.print(WITH_KEYS if needed else WITHOUT_KEYS)

        run_server(Listening(host, port, names, loopback, LogFormat(log_format)), tell)


def _need_key(host: str) -> None:
    """Raise UsageError if no key exists that works; nothing heavy is loaded to find out."""
    with key_errors_translated():
        from deploy.keys import has_working_key

        if not has_working_key():
            raise UsageError(
                f"--host {host} can be reached by others, which needs an API key, and there is none: make one with "
                "`visavox keys create --label NAME --role reader`, or listen on 127.0.0.1"
            )


def worker(
    queues: Annotated[str, typer.Option(help="Queues to work on, separated by commas; all by default.")] = "",
    concurrency: Annotated[
        int, typer.Option(min=0, help="Child processes; 0: one for each GPU, or one. 1 with an embedded index.")
    ] = 0,
) -> None:
    """Do what others ask for through the broker.

    A worker of all queues keeps a second, idle process for what somebody waits for, such as an enrolment: it need not
    wait for the piece of a film that is at hand. An embedded index has one owner, and no room for it.
    """
    with errors_translated():
        from deploy.settings import load_settings

        settings = load_settings()
        chosen = _queues(queues)
        if not settings.broker_url:
            raise UsageError("a worker needs VISAVOX_BROKER_URL, the URL of a Redis such as redis://127.0.0.1:6379/0")
        if settings.embedded and concurrency > 1:
            raise UsageError("the embedded index has one owner: use --concurrency 1, or set VISAVOX_MILVUS_URI")
        from deploy.beside import beside_for_who_waits
        from deploy.working import children_of, worker_making
        from ingest.worker import make_app, run_worker

        app = make_app(settings.broker_url, worker_making(chosen))
        with nullcontext() if queues or settings.embedded else beside_for_who_waits():
            code = run_worker(app, concurrency or children_of(settings))
        raise typer.Exit(code)


def _queues(named: str) -> tuple[Queue, ...]:
    """The queues that a person names, all by default. Raises UsageError."""
    from ingest.tasks import Queue

    try:
        return tuple(Queue(name.strip()) for name in named.split(",") if name.strip()) or tuple(Queue)
    except ValueError as error:
        raise UsageError(f"--queues {named}: the queues are {', '.join(Queue)}") from error


def demo() -> None:
    """Invent people, film them, ingest the films, ask who is speaking; train a shared space and measure it."""
    from deploy.cli.train import training_errors_translated

    with errors_translated(), training_errors_translated("demo_failed"):
        from deploy.demo import DemoFailed, run_demo

        try:
            run_demo()
        except DemoFailed as error:
            raise NothingDone("demo_failed", str(error)) from error


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
