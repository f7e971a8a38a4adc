"""Which model is chosen, and the locks under which that changes: also between processes, and when one is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.choice import Choice, ModelLocks, ReencodingRuns, Turnstile, read_choices, write_choices
from deploy.models import read_choice, write_choice
from encoders.encoder import EncoderError

INSIDE = """
import sys
from pathlib import Path
from deploy.choice import Turnstile
with getattr(Turnstile(Path(sys.argv[1]), "door"), sys.argv[2])():
    print("inside", flush=True)
    sys.stdin.read()
"""


def inside(folder: Path, how: str) -> subprocess.Popen[str]:
    """Another process that holds the lock until it is told otherwise."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "inside\n"
    return process


def refused(door: Turnstile) -> bool:
    try:
        with door.at_once():
            return False
    except BlockingIOError:
        return True


def test_a_choice_is_read_as_it_was_written_and_moves_with_its_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert read_choices(home) == Choice()
    write_choices(home, Choice(home / "encoders/b", home / "encoders/a", tmp_path / "outside"))
    moved = home.rename(tmp_path / "moved")
    assert read_choices(moved) == Choice(moved / "encoders/b", moved / "encoders/a", tmp_path / "outside")
    assert read_choice(moved) == moved / "encoders/b"
    write_choice(moved, None)
    assert not (moved / "model.json").exists()


def test_a_first_model_can_be_filled_while_none_serves(tmp_path: Path) -> None:
    write_choices(tmp_path, Choice(filling=tmp_path / "a"))
    assert read_choices(tmp_path) == Choice(filling=tmp_path / "a") and read_choice(tmp_path) is None


def test_a_choice_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"folder": "encoders/a"}))
    assert read_choices(tmp_path) == Choice(tmp_path / "encoders/a")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"first"', "3"])
def test_a_damaged_choice_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(EncoderError, match=r"model\.json.*visavox models use"):
        read_choices(tmp_path)


def test_many_are_inside_together_and_one_is_inside_alone(tmp_path: Path) -> None:
    door = Turnstile(tmp_path, "door")
    with door.shared(), door.shared():
        assert refused(door)
    with door.alone():
        assert refused(door)
    assert not refused(door)


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    door = Turnstile(tmp_path, "door")
    for how in ("shared", "alone"):
        with inside(tmp_path, how) as other:
            assert refused(door)
            other.kill()
        assert not refused(door)


def test_who_wants_in_alone_comes_before_those_who_come_later(tmp_path: Path) -> None:
    door, order = Turnstile(tmp_path, "door"), []
    waiting = threading.Event()

    def alone() -> None:
        with door.alone(lambda _: waiting.set()):
            order.append("alone")

    def later() -> None:
        with door.shared():
            order.append("later")

    with inside(tmp_path, "shared") as other:
        threads = [threading.Thread(target=alone), threading.Thread(target=later)]
        threads[0].start()
        assert waiting.wait(60)  # the gate is closed
        threads[1].start()
        other.communicate("")
        for thread in threads:
            thread.join(60)
    assert order == ["alone", "later"]


def test_one_at_a_time_brings_a_model_in(tmp_path: Path) -> None:
    first, second = ModelLocks(tmp_path), ModelLocks(tmp_path)
    with first.exchanging(), pytest.raises(ReencodingRuns, match="another process"), second.exchanging():
        pass
    with second.exchanging():
        pass
