"""``status``, ``serve``, ``worker``, ``demo``: running an installation."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from deploy.cli.output import Json, NothingDone, UsageError, answer, console, errors_translated, progress_console


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
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Answer over HTTP: /docs shows how."""
    if not _is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached by others, which needs an API key, and this version has no keys yet: "
            "listen on 127.0.0.1 and put an authenticating proxy in front"
        )
    with errors_translated():
        from deploy.serving import run_server

        run_server(
            host,
            port,
            lambda bound: progress_console.print(f"visavox listens on http://{host}:{bound} (documentation: /docs)"),
        )


def worker(
    queues: Annotated[str, typer.Option(help="Queues to work on, separated by commas; all by default.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Child processes; 1 with an embedded index.")] = 1,
) -> None:
    """Work on files that others send through the broker."""
    with errors_translated():
        from deploy.settings import load_settings

        settings = load_settings()
        if not settings.broker_url:
            raise UsageError("a worker needs VISAVOX_BROKER_URL, the URL of a Redis such as redis://127.0.0.1:6379/0")
        if settings.embedded and concurrency > 1:
            raise UsageError("the embedded index has one owner: use --concurrency 1, or set VISAVOX_MILVUS_URI")
        from deploy.celery_app import app
        from ingest.worker import run_worker

        run_worker(app, [name for name in queues.split(",") if name] or ["encode"], concurrency)


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
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
