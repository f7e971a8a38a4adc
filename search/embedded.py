"""The embedded index's place on disk: one owner process at a time, who it is, and its server inside us.

Milvus Lite keeps a database in a folder (named ``*.db``) and serves it from threads of the process
that opened it. It locks the folder, but cannot say against whom; so we lock a file beside it first and
note there whose it is. The lock is what counts: the kernel lets go of it when its process ends, however
it ends, so a note left behind by a killed process misleads nobody.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError

from search.store import StoreError, StoreFull, StoreHeld

NO_ROOM = os.strerror(errno.ENOSPC)
"""What the embedded engine says of a full disk, among other words."""
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0
_OUR_COLLECTION = re.compile(r".+_[0-9a-f]{12}_g\d+")


class Claim:
    """Sole ownership of a path by this process, until :meth:`release`.

    Args:
        path: what is owned; the lock file is ``path`` with ``.owner`` appended.
        wait: seconds to wait for another owner to let go.

    Raises:
        StoreHeld: another process owns it; the message names that process.
        StoreError: the lock file cannot be made.
    """

    def __init__(self, path: Path, wait: float = 0.0) -> None:
        note = path.with_name(path.name + ".owner")
        deadline = time.monotonic() + wait
        try:
            self._descriptor = os.open(note, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened for writing ({error.strerror})") from error
        while not _locked(self._descriptor):
            if time.monotonic() >= deadline:
                os.close(self._descriptor)
                raise StoreHeld(_explanation(path, note))
            time.sleep(_POLL_SECONDS)
        ours = {"pid": os.getpid(), "command": _command(), "host": socket.gethostname()}
        self._write(json.dumps(ours))

    def release(self) -> None:
        """Let go. The file stays, empty: once it is removed, two processes could lock two files."""
        self._write("")
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)


class EmbeddedIndex:
    """An embedded index that this process owns, shared by its stores and closed by the last of them.

    Attributes:
        address: where its server listens, on loopback.
        lock: hold it for every call: the engine has one writer at a time, and a rewrite none beside it.
    """

    _open: ClassVar[dict[Path, EmbeddedIndex]] = {}
    _gate: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, wait: float) -> None:
        self._path, self._users = path, 0
        self.lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: cannot be made ({error.strerror})") from error
        self._claim = Claim(path, wait)
        try:
            _sweep(path)
            logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)  # its errors reach us as errors
            self._server, self._database, port = start_server_in_thread(str(path))
        except DataDirLockedError as error:
            self._claim.release()
            raise StoreHeld(f"{path} is open in another program: stop it first") from error
        except (MilvusLiteError, OSError, ValueError) as error:
            self._claim.release()
            if NO_ROOM in str(error):
                raise StoreFull(f"{path}: cannot be opened ({error}): make room there and do the same again") from error
            raise StoreError(f"{path}: not an embedded index that can be opened ({error})") from error
        self.address = f"http://127.0.0.1:{port}"
        atexit.register(self._close)

    @classmethod
    def acquire(cls, path: Path, wait: float = 0.0) -> EmbeddedIndex:
        """Open the index, or join the store of this process that has done so.

        Args:
            path: its folder; made, with its parents, if it does not exist.
            wait: seconds to wait for another process to let go.

        Raises:
            StoreHeld: another process has it open.
            StoreError: it cannot be opened.
        """
        path = path.expanduser().resolve()
        with cls._gate:
            if path not in cls._open:
                cls._open[path] = cls(path, wait)
            cls._open[path]._users += 1
            return cls._open[path]

    def release(self) -> None:
        """Give up one use; the last one closes the index, and another process can open it."""
        with self._gate:
            self._users -= 1
            if self._users == 0:
                atexit.unregister(self._close)
                del self._open[self._path]
                self._close()

    def _close(self) -> None:
        self._server.stop(_GRACE_SECONDS).wait()
        self._database.close()
        self._claim.release()


def _sweep(path: Path) -> None:
    """Remove what a process killed while making or dropping a collection has left.

    Such a folder has no schema: the engine neither lists it nor lets its name be used again.
    """
    for folder in path.glob("collections/*"):
        if _OUR_COLLECTION.fullmatch(folder.name) and not (folder / "schema.json").exists():
            shutil.rmtree(folder)
    for index in path.glob("collections/**/*.idx"):  # made anew of the rows where it is missing
        if not _is_whole(index):
            index.unlink()


def _is_whole(index: Path) -> bool:
    """Whether a file of an index is all there: one whose writer was killed keeps its collection from being opened."""
    if not index.stat().st_size:
        return False
    with index.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            return True  # of another form
    try:
        np.load(index, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return False
    return True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _command() -> str:
    """What this process is, without its arguments: they may name people and files."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    words = sys.argv[1:2] if re.fullmatch(r"[a-z]+", "".join(sys.argv[1:2])) else []
    return shlex.join([name or "python", *words])


def _explanation(path: Path, note: Path) -> str:
    """A sentence that names the owner as far as its note can be read, and what to do."""
    try:
        read = json.loads(note.read_text())
        owner = f"process {read['pid']} on {read['host']} ({read['command']})"
        serving = " serve" in read["command"]
    except (OSError, ValueError, KeyError, TypeError):
        owner, serving = "another process", False  # it is just writing its note
    advice = "ask that server over HTTP, stop it" if serving else "wait for it to end, stop it"
    return (
        f"{path} is open in {owner}, and an embedded index has one owner at a time: "
        f"{advice}, or set VISAVOX_MILVUS_URI to a Milvus server"
    )
