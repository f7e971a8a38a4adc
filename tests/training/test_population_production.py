from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.population.films import Camera
from training.population.people import Stream, invent_people
from training.population.production import Film, PersonSamples, clear_staging, make_units, write_jpeg

ROOT = Path(__file__).resolve().parents[2]
PERSON = invent_people(1, 0, Stream.TRAINING)[0]

PROGRAM = """
import signal
import sys
from pathlib import Path
from training.population.protocol import write_training
from training.population.splits import TrainingSpec

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    told = lambda done, total: print(done, flush=True)
    write_training(Path(sys.argv[1]), TrainingSpec(people=200, samples=4), told, processes=2)
"""


@dataclass(frozen=True)
class _Line:
    """A unit that is made in no time."""

    path: Path

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def done(self) -> bool:
        return self.path.exists()

    def make(self) -> None:
        if self.path.name == "bad":
            raise OSError("disk full")
        deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())
        self.path.write_text("deaf to Ctrl-C" if deaf else "made")


def _alive(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    listed = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [int(row[0]) for row in rows if int(row[1]) == group and not row[2].startswith("Z")]


def test_progress_counts_what_was_there_and_rises_to_the_whole(tmp_path: Path) -> None:
    units, told = [_Line(tmp_path / str(number)) for number in range(4)], []
    units[2].make()
    make_units(units, 1, lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(unit.done for unit in units)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_in_any_process_reaches_the_caller(tmp_path: Path, processes: int) -> None:
    with pytest.raises(OSError, match="disk full"):
        make_units([_Line(tmp_path / "good"), _Line(tmp_path / "bad")], processes, lambda _done, _total: None)
    assert not (tmp_path / "bad").exists()


def test_ctrl_c_is_for_the_caller_to_hear_not_for_the_processes_it_started(tmp_path: Path) -> None:
    units = [_Line(tmp_path / "one"), _Line(tmp_path / "two")]
    make_units(units, 2, lambda _done, _total: None)
    assert {unit.path.read_text() for unit in units} == {"deaf to Ctrl-C"}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_no_processes_make_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        make_units([_Line(tmp_path / "one")], 0, lambda _done, _total: None)


def test_a_person_that_fails_half_way_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = PersonSamples(tmp_path, PERSON, 2, 0)

    def refuse(path: Path, _waveform: object) -> None:
        raise OSError(f"no room for {path.name}")

    with monkeypatch.context() as patch:
        patch.setattr("training.population.production.write_flac", refuse)
        with pytest.raises(OSError, match="no room for voice_01"):
            unit.make()
    assert not unit.done
    unit.make()
    clear_staging(tmp_path)
    assert unit.done and [path.name for path in tmp_path.iterdir()] == [PERSON.identity]


def test_making_a_person_who_is_there_already_changes_nothing(tmp_path: Path) -> None:
    unit = PersonSamples(tmp_path, PERSON, 1, 0)
    unit.make()
    before = {path.name: path.read_bytes() for path in (tmp_path / PERSON.identity).iterdir()}
    unit.make()
    assert {path.name: path.read_bytes() for path in (tmp_path / PERSON.identity).iterdir()} == before
    assert set(before) == {"face_01.jpg", "voice_01.flac"} and len(list(tmp_path.iterdir())) == 1


def test_a_film_without_its_truth_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.population.production.FILM_CAMERA", Camera(width=160, height=96, fps=5))
    unit = Film(tmp_path / "film_1.mp4", (PERSON,), seed=1, seconds=2.0)
    unit.make()
    before = unit.path.read_bytes()
    unit.path.with_suffix(".json").unlink()
    assert not unit.done
    unit.make()
    assert unit.done and unit.path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_photo_survives_jpeg_nearly_unchanged_in_its_colours(tmp_path: Path) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = (200, 100, 50)
    write_jpeg(tmp_path / "photo.jpg", picture)
    back = cv2.imread(str(tmp_path / "photo.jpg"))[..., ::-1]
    assert np.abs(back[:, 20:].astype(int) - (200, 100, 50)).max() < 6


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_a_kill_ends_all_processes_at_once_and_leaves_whole_people_only(
    tmp_path: Path, end: signal.Signals
) -> None:
    # A group of its own, as a terminal gives: Ctrl-C reaches all of it, a kill only the first.
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert started.stdout is not None and started.stderr is not None
    while started.stdout.readline().strip() not in ("3", ""):
        pass
    asked = time.monotonic()
    send: Callable[[int, int], None] = os.killpg if end is signal.SIGINT else os.kill
    send(started.pid, end)
    started.wait(timeout=20)
    while _alive(started.pid) and time.monotonic() < asked + 20:
        time.sleep(0.05)
    assert not _alive(started.pid) and time.monotonic() - asked < 5
    said = started.stderr.read()
    assert said.count("Traceback") == (end is signal.SIGINT)  # the caller's own, none of the others'
    folders = [path for path in tmp_path.glob("population/*/media/*") if not path.name.startswith(".")]
    assert 3 <= len(folders) < 200 and {len(list(folder.iterdir())) for folder in folders} == {8}
    assert not list(tmp_path.glob("population/*/protocol.json"))
    started.stdout.close()
    started.stderr.close()
