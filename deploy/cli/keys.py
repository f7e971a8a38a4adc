"""``keys``: who may ask over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import Json, NothingDone, UsageError, answer, console, progress_console

if TYPE_CHECKING:
    from search.access import Key

ROLES = ("reader", "editor", "admin")


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(
        help="API keys: needed to serve beyond loopback, and everywhere once there is one.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    family.command("create")(create)
    family.command("list")(list_keys)
    family.command("revoke")(revoke)
    app.add_typer(family, name="keys")


def create(
    label: Annotated[str, typer.Option(help="What people know the key by, such as who or what uses it.")],
    role: Annotated[
        str, typer.Option(help="reader: ask and look; editor: also people and samples; admin: also /metrics.")
    ],
    json: Json = False,
) -> None:
    """Make a key and show it, this once: only a hash of it is kept."""
    if role not in ROLES:
        raise UsageError(f"--role is one of {', '.join(ROLES)}, not {role!r}")
    with key_errors_translated():
        from deploy.keys import open_keys
        from search.access import Role, check_label

        try:
            check_label(label)
        except ValueError as error:
            raise UsageError(str(error)) from error
        identity, secret = open_keys().create(label, Role(role))

    def show() -> None:
        progress_console.print(f"Key {identity} ({role}, {label}). Keep it: it cannot be shown again.")
        console.print(secret)

    answer({"id": identity, "label": label, "role": role, "key": secret}, json, show)


def list_keys(json: Json = False) -> None:
    """List all keys, without their secrets."""
    with key_errors_translated():
        from deploy.keys import open_keys

        keys = open_keys().all()

    def show() -> None:
        for key in keys:
            used = f"last used {_moment(key.last_used)}" if key.last_used else "never used"
            state = f"revoked {_moment(key.revoked)}" if key.revoked else used
            console.print(f"{key.id}  {key.role:6}  {key.label}  (made {_moment(key.created)}, {state})")
        if not keys:
            console.print("there are no keys: visavox keys create --label TEXT --role reader")

    answer({"keys": [_plain(key) for key in keys]}, json, show)


def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `visavox keys list` shows it.")],
    json: Json = False,
) -> None:
    """Let a key work no longer; servers notice within two seconds."""
    with key_errors_translated():
        from deploy.keys import open_keys

        key = open_keys().revoke(identity)

    answer(_plain(key), json, lambda: console.print(f"{key.id} ({key.label}) is revoked"))


@contextmanager
def key_errors_translated() -> Iterator[None]:
    """As that of the other commands, for the few errors that there are here: keys need no network to be loaded."""
    from deploy.settings import SettingsError
    from ingest.ledger import RecordsError
    from search.access import UnknownKey

    try:
        yield
    except SettingsError as error:
        raise UsageError(str(error)) from error
    except UnknownKey as error:
        raise NothingDone("unknown_key", str(error)) from error
    except RecordsError as error:
        raise NothingDone("records", str(error)) from error
    except OSError as error:
        raise NothingDone("file_system", f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error


def _plain(key: Key) -> dict[str, Any]:
    moments = {name: _moment(getattr(key, name)) for name in ("created", "last_used", "revoked")}
    return asdict(key) | {"role": str(key.role)} | moments


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='seconds')}Z"
