"""Which shared-space encoder an installation has chosen, and how that changes while others work.

The choice is one small file in the home, so that every process, on every machine that shares the home, makes the
same one: what serves, what served before and is kept to go back to, and what is just being filled. It is replaced
as a whole, and only by who holds the lock that every writer of rows shares: so whoever writes knows what serves
until its rows are written, and whoever switches knows that nobody writes rows of the model before any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from encoders.folder import EncoderError

CHOICE_FILE = "model.json"
CHOOSE_ANOTHER = "choose another with `visavox models use FOLDER`, or `visavox models use none`"
LOCKS = "locks"
_PAUSE_SECONDS = 0.02


class ReencodingRuns(EncoderError):
    """Another process is just bringing a model in."""


@dataclass(frozen=True)
class Choice:
    """The models of an installation, by their folders; None: there is none.

    Args:
        serving: makes the shared space that is searched.
        previous: served before; its rows are kept to go back to it.
        filling: gets its rows, and does not serve yet.
    """

    serving: Path | None = None
    previous: Path | None = None
    filling: Path | None = None


_KEYS = {"serving": "folder", "previous": "previous", "filling": "filling"}


def read_choices(home: Path) -> Choice:
    """What an installation has chosen. Raises EncoderError if the file that says so cannot be read."""
    path = home / CHOICE_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        given = {name: told["folder"] if key == "folder" else told.get(key) for name, key in _KEYS.items()}
        return Choice(**{name: home / str(folder) if folder is not None else None for name, folder in given.items()})
    except FileNotFoundError:
        return Choice()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{path} does not say which model serves ({error}): {CHOOSE_ANOTHER}") from error


def write_choices(home: Path, choice: Choice) -> None:
    """Record a choice for every later look. A home can be moved with the folders in it."""
    path = home / CHOICE_FILE
    if choice == Choice():
        path.unlink(missing_ok=True)
        return
    told = {key: _told(home, getattr(choice, name)) for name, key in _KEYS.items()}
    kept = {key: folder for key, folder in told.items() if folder is not None or key == "folder"}
    home.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{CHOICE_FILE}.{os.getpid()}")
    unfinished.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _told(home: Path, folder: Path | None) -> str | None:
    if folder is None:
        return None
    folder = folder.absolute()
    return str(folder.relative_to(home) if folder.is_relative_to(home) else folder)


class Turnstile:
    """A lock on files that many share or one holds alone, in any process; nobody waits for ever for either.

    Who wants it alone first closes the gate through which all others come, then waits for those inside. The kernel
    lets go of it when its process ends, however it ends. Not to be taken inside a block of the same.

    Args:
        folder: where the lock files are made.
        name: of the lock.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._gate, self._room = folder / f"{name}.gate", folder / f"{name}.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside with others."""
        with ExitStack() as inside:
            with _locked(self._gate, fcntl.LOCK_SH):
                inside.enter_context(_locked(self._room, fcntl.LOCK_SH))
            yield

    @contextmanager
    def alone(self, on_waiting: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
        """Be inside alone.

        Args:
            on_waiting: told now and then for how many seconds those inside have been waited for.
        """
        with _locked(self._gate, fcntl.LOCK_EX), _locked(self._room, fcntl.LOCK_EX, on_waiting):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """The same without waiting. Raises BlockingIOError."""
        with _locked(self._gate, fcntl.LOCK_EX | fcntl.LOCK_NB), _locked(self._room, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield


@contextmanager
def _locked(path: Path, kind: int, on_waiting: Callable[[float], None] | None = None) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        began = time.monotonic()
        while on_waiting:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_waiting(time.monotonic() - began)
                time.sleep(_PAUSE_SECONDS)
        else:
            fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


class ModelLocks:
    """Who writes rows, who forgets and who exchanges models, kept apart; in the home, for all its processes.

    Args:
        home: of the installation.

    Attributes:
        choice: shared by writers of rows; alone by who changes the choice.
        records: shared by who makes rows of what the records say; alone by who forgets somebody.
    """

    def __init__(self, home: Path) -> None:
        self.choice = Turnstile(home / LOCKS, "choice")
        self.records = Turnstile(home / LOCKS, "records")
        self._exchange = Turnstile(home / LOCKS, "exchange")

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Be the only one who brings a model in. Raises ReencodingRuns."""
        with ExitStack() as held:
            try:
                held.enter_context(self._exchange.at_once())
            except BlockingIOError as error:
                raise ReencodingRuns("another process is just bringing a model in: wait for it, or end it") from error
            yield
