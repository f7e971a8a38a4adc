"""Kills a re-encoding at chosen moments, runs it again, and tells what is then there. Not a test by itself.

``python -m tests.deploy.killed_reencode HOME MOMENT…`` where a moment is ``quiet`` or ``after|before:NAME:N``: the
process kills itself there with the N-th call of a function. Each moment gets a copy of the home and processes of
its own, forked when everything is imported and before anything is opened.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy import reencoding
from deploy.choice import read_choices
from deploy.cli import main
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.folder import read_description
from search import filling
from search.milvus import MilvusStore

PLACES: dict[str, tuple[Any, str]] = {
    "choose": (reencoding, "write_choices"),
    "create": (MilvusStore, "create"),
    "upsert": (MilvusStore, "upsert"),
    "drop": (MilvusStore, "drop_others"),
}
COMMAND = ["reencode", "--model", "second", "--json"]


def killed_at(moment: str) -> None:
    """Let this process kill itself at a moment."""
    when, name, number = moment.split(":")
    place, attribute = PLACES[name]
    original: Callable[..., Any] = getattr(place, attribute)
    left = int(number)

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, attribute, counted)


def in_child(work: Callable[[], None]) -> int:
    """Do it in a process of its own; the signal that ended it, or 0."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            work()
        except SystemExit:
            pass
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def told(home: Path) -> dict[str, Any]:
    """Rows of the models' collections, and what is chosen."""
    opened = Installation(load_settings())
    choice = read_choices(home)
    folders = {"serving": choice.serving, "previous": choice.previous, "filling": choice.filling}
    state: dict[str, Any] = {role: folder.name if folder else None for role, folder in folders.items()}
    state["spaces"] = sorted(space.digest for space in opened.store.spaces() if space.name == "shared")
    for folder in sorted((home / "encoders").iterdir()):
        space = read_description(folder).make_space()
        rows = sorted(opened.store.rows(space), key=lambda row: row.key)
        state[folder.name] = [(row.key, row.person, row.embedding.vector.tobytes().hex()) for row in rows]
    opened.close()
    return state


def run(home: Path, moment: str) -> dict[str, Any]:
    """Kill, look, run again, look."""
    copy = home.with_name(f"home {moment.replace(':', ' ')}")
    shutil.copytree(home, copy)
    os.environ["VISAVOX_HOME"] = str(copy)
    notes = copy / "notes"

    def look(name: str) -> None:
        def write() -> None:
            notes.with_suffix(f".{name}").write_text(json.dumps(told(copy)))

        in_child(write)

    def first() -> None:
        if moment != "quiet":
            killed_at(moment)
        main(COMMAND)

    signalled = in_child(first)
    look("between")
    in_child(lambda: main(COMMAND))
    look("after")
    states = {name: json.loads(notes.with_suffix(f".{name}").read_text()) for name in ("between", "after")}
    return {"killed": signalled == signal.SIGKILL} | states


if __name__ == "__main__":
    filling.BATCH = 2
    print(json.dumps({moment: run(Path(sys.argv[1]), moment) for moment in sys.argv[2:]}))
