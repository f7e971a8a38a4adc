"""Real processes, killed and stopped at any moment: what is then run again ends as what ran quietly."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.settings import load_settings
from deploy.wiring import Installation
from deploy.working import queue_of
from ingest.flow import ingest_job
from ingest.jobpage import JobPages
from ingest.walk import Walk, walk_media
from tests.deploy.test_topologies import clean, visavox
from tests.search.held import assert_nothing_is_left_over, held
from tests.search.test_archive_hardships import without_privileges
from training.population.faces import draw_view, render_face
from training.population.folder import MediaSize, write_demo_media, write_photo, write_wav
from training.population.people import invent_people
from training.population.protocol import write_protocol
from training.population.splits import PopulationSpec
from training.population.voices import draw_delivery, speak


@dataclass(frozen=True)
class Home:
    """An installation that commands are run in, and killed in."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"VISAVOX_HOME": str(self.folder), "VISAVOX_DEVICE": "cpu"}

    def run(self, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
        """Run a command to its end; its exit code and JSON."""
        return visavox(self.environment, *map(str, arguments))

    def do(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command that does all it is told."""
        code, answer = self.run(*arguments)
        assert code == 0, answer
        return answer

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command, and come back when its models are being loaded: the index is its own from then on."""
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *map(str, arguments), "--json"],
            env=clean(self.environment), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        wait_until(lambda: self._owner() == process.pid or process.poll() is not None)
        return process

    def _owner(self) -> int:
        try:
            return int(json.loads((self.folder / "index" / "milvus.db.owner").read_text())["pid"])
        except (OSError, ValueError):
            return 0

    def pieces(self) -> int:
        """Number of whole pieces of evidence."""
        return sum(not path.name.startswith(".") for path in (self.folder / "evidence").glob("*/*"))

    def held(self) -> dict[str, Any]:
        """Records and files, without status."""
        return held(self.folder)

    def told(self) -> dict[str, Any]:
        """Records, files and what ``status`` and ``people`` say."""
        people = [{name: one[name] for name in ("name", "faces", "voices")} for one in self.run("people")[1]["people"]]
        return self.held() | {"status": self.run("status")[1], "who": people}


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def end(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Send a signal; whether it was that which ended the process."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    process.communicate(timeout=120)
    return process.returncode == -number


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def moments() -> random.Random:
    return random.Random(20)


def write_samples(folder: Path, people: int) -> Path:
    """A photo and a sound of each of a few invented people."""
    folder.mkdir()
    for number, person in enumerate(invent_people(people, 7)):
        chance = np.random.default_rng([7, number])
        write_wav(folder / f"{number}.wav", speak(person, draw_delivery(chance, sentences=1)))
        write_photo(folder / f"{number}.jpg", render_face(person, draw_view(chance), 256, seed=number))
    return folder


@contextlib.contextmanager
def opened(home: Home) -> Iterator[Installation]:
    installation = Installation(load_settings(home.environment))
    installation.archive.mend()
    yield installation
    installation.close()


def ingest_here(home: Home, media: Path) -> dict[str, Any]:
    """Ingest in this process; what is held then."""
    with opened(home) as installation:
        queue = queue_of(installation)
        job = queue.submit(ingest_job(sorted(media.iterdir()), "default", here=True))
        assert [page.state for page in queue.follow(job)][-1] == "done"
        installation.archive.flush()
        reports = list(JobPages(installation.database).reports(job))
        assert {report.state for report in reports} <= {"done", "unchanged"}
        return home.held() | {"status": installation.archive.status()}


@pytest.mark.long
def test_an_ingest_that_is_killed_then_stopped_and_run_again_ends_as_a_quiet_one(home: Home, tmp_path: Path) -> None:
    media = write_samples(tmp_path / "media", 5)
    killed = home.start("ingest", media)
    wait_until(lambda: home.pieces() >= 2)
    assert end(killed, signal.SIGKILL)
    stopped = home.start("ingest", media)
    wait_until(lambda: home.pieces() >= 4)
    stopped.send_signal(signal.SIGINT)
    answer = json.loads(stopped.communicate(timeout=60)[0])
    assert stopped.returncode == 130 and answer["error"]["type"] == "interrupted"
    assert_nothing_is_left_over(home.held())  # the first Ctrl-C let the file at hand be finished
    assert {line[1] for line in home.held()["media"]} == {"done"}
    assert ingest_here(home, media) == ingest_here(Home(tmp_path / "quiet"), media)


def test_what_may_not_be_read_is_listed_and_not_passed_over(tmp_path: Path) -> None:
    for name in ("open", "locked", "locked/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").touch()
    (tmp_path / "locked").chmod(0)
    walks: list[Walk] = []
    without_privileges(lambda: walks.append(walk_media([tmp_path, tmp_path / "locked" / "inner"])))
    (tmp_path / "locked").chmod(0o700)
    assert walks[0].media == [tmp_path / "open" / "a.wav"] and not walks[0].missing
    assert set(walks[0].unreadable) == {str(tmp_path / "locked"), str(tmp_path / "locked" / "inner")}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_ingest_killed_at_twenty_random_moments_ends_as_a_quiet_one(tmp_path: Path, moments: random.Random) -> None:
    spec = PopulationSpec(test_people=6, test_samples=2, validation_people=4, validation_samples=2, films=4)
    films = write_protocol(tmp_path, spec) / "films"
    quiet = Home(tmp_path / "quiet")
    started = time.monotonic()
    quiet.do("ingest", films)
    expected, span = quiet.told(), (time.monotonic() - started) / 3
    kills, rounds = 0, 0
    while kills < 20:
        home = Home(tmp_path / f"home {rounds}")
        rounds += 1
        while kills < 20:  # each goes on where the one before was killed, until everything is in
            process = home.start("ingest", films)
            time.sleep(moments.uniform(0, span))
            if not end(process, signal.SIGKILL):
                assert process.returncode == 0
                break
            kills += 1
        home.do("ingest", films)
        assert_nothing_is_left_over(home.held())
        assert home.told() == expected


def run_timed(home: Home, *command: str | Path) -> tuple[int, float]:
    """Run a command quietly; its exit code, and the seconds from when it owns the index: then it can be killed."""
    process = home.start(*command)
    started = time.monotonic()
    process.communicate(timeout=120)
    return process.returncode, time.monotonic() - started


def repeat_until_done(home: Home, moments: random.Random, span: float, *command: str | Path) -> tuple[int, int]:
    """Kill a command up to three times at random moments, then let it run; the kills, and the last exit code."""
    for kills in range(3):
        process = home.start(*command)
        time.sleep(moments.uniform(0, span))
        if not end(process, signal.SIGKILL):
            return kills, process.returncode
    return 3, home.run(*command)[0]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_enrolments_and_forgettings_killed_at_random_moments_end_as_quiet_ones(
    tmp_path: Path, moments: random.Random
) -> None:
    count = 6
    media = write_samples(tmp_path / "media", count)
    quiet, home = Home(tmp_path / "quiet"), Home(tmp_path / "home")
    for one in (quiet, home):
        one.do("ingest", media / "1.wav")  # stays when its person is forgotten, without a name
    timed = [run_timed(quiet, "enrol", f"Person {number}", *media.glob(f"{number}.*")) for number in range(count)]
    codes, span, kills = [code for code, _ in timed], min(seconds for _, seconds in timed), 0
    for number in range(count):
        some, code = repeat_until_done(home, moments, span, "enrol", f"Person {number}", *media.glob(f"{number}.*"))
        kills += some
        assert code == codes[number]
    assert kills >= 10 and home.told() == quiet.told()
    assert_nothing_is_left_over(home.held())
    for number in range(4):
        code, span = run_timed(quiet, "forget", f"Person {number}")
        assert code == 0
        some, code = repeat_until_done(home, moments, span, "forget", f"Person {number}")
        kills += some
        assert code in (0, 3)  # 3: nobody is called that any more
    assert home.do("ingest", media / "1.wav")["unchanged"] == 1  # mends
    assert kills >= 15 and home.told() == quiet.told()
    assert_nothing_is_left_over(home.held())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_second_ctrl_c_stops_at_once_and_nothing_is_lost(home: Home, tmp_path: Path) -> None:
    made = write_demo_media(tmp_path / "media", 5, MediaSize(people=3, strangers=0, films=1, film_seconds=30))
    films = made.films[0].path.parent
    shutil.copy(made.people[0].clips[0], films / "a.wav")
    process = home.start("ingest", films)
    wait_until(lambda: home.pieces() > 0)
    time.sleep(1)  # into the film, which takes much longer
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    answer = json.loads(process.communicate(timeout=60)[0])
    assert time.monotonic() - started < 10
    assert process.returncode == 130 and answer["error"]["type"] == "interrupted"
    assert len(home.held()["media"]) == 1
    home.do("ingest", films)
    quiet = Home(tmp_path / "quiet")
    quiet.do("ingest", films)
    assert home.told() == quiet.told()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_home_whose_disk_fills_up_stops_with_advice_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    media, disk = write_samples(tmp_path / "media", 5), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a disk here")
    try:
        home, told = Home(disk / "home"), []
        for size in (300, 700, 1500, 3000, 6000, 9000, 12_000):
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            code, answer = home.run("ingest", media)
            told.append(answer.get("error", {}))
            if code == 0:
                break
            assert code == 3 and "make room" in told[-1]["message"], told[-1]
        assert len(told) > 2 and told[-1] == {}
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        home.do("ingest", media)
        quiet = Home(tmp_path / "quiet")
        quiet.do("ingest", media)
        assert home.told() == quiet.told()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
