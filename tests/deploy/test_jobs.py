"""``visavox jobs``, and that it, the API and the database tell the same; no network is loaded for any of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from deploy.cli import main
from ingest.book import ITEMS, JOBS, Book
from ingest.flow import INGEST
from ingest.jobpage import JobPages
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from ingest.tasks import NewJob
from search.api.app import create_app
from tests.ingest.conftest import StoppableRedis
from tests.ingest.small_jobs import Reader, book_in, small_job, work_of
from tests.search.api_house import LOCAL, House, TestClient

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def book(home: Path) -> Book:
    return book_in(home)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """The one document that a command prints."""
    got, out = said(capsys, *arguments, "--json")
    assert got == code, out
    return dict(json.loads(out))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *arguments])
    return int(ended.value.code or 0), capsys.readouterr().out


def do_all(book: Book, reader: Reader | None = None) -> None:
    runner = Runner(book, work_of(reader or Reader()), ())
    while runner.run_one(ALL_QUEUES, "one"):
        pass


def test_jobs_are_listed_the_newest_first(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    assert told(capsys) == {"jobs": []} and "no jobs yet" in said(capsys)[1]
    old, new = book.open_job(small_job("a", "bad")), book.open_job(small_job("b"))
    book.cancel(new)
    assert [job["job"] for job in told(capsys)["jobs"]] == [new, old]
    assert [job["job"] for job in told(capsys, "--unfinished")["jobs"]] == [old]
    assert [job["job"] for job in told(capsys, "--limit", "1")["jobs"]] == [new]
    lines = said(capsys)[1].splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[new[:8], "ingest"], [old[:8], "ingest"]]


def test_a_job_is_told_by_the_beginning_of_its_id(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    job = book.open_job(small_job("a", *["bad"] * 7))
    do_all(book)
    page = asdict(JobPages(book.database).page(job))
    assert told(capsys, job[:6]) == told(capsys, "show", job) == page
    text = said(capsys, job)[1]
    assert "7 failed" in text and text.count("/media/bad: is no medium") == 5 and "--files --state failed" in text


def test_files_of_a_job_are_told_by_state_and_in_pages(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    job = book.open_job(small_job("a", "bad", "b", "bad"))
    do_all(book)
    failed = told(capsys, job, "--files", "--state", "failed")
    assert [file["number"] for file in failed["files"]] == [2, 4] and failed["next"] is None
    first = told(capsys, job, "--files", "--limit", "3")
    assert [file["number"] for file in first["files"]] == [1, 2, 3] and first["next"] == 3
    assert [file["number"] for file in told(capsys, job, "--files", "--after", "3")["files"]] == [4]
    assert "failed     /media/bad: is no medium" in said(capsys, job, "--files")[1]


def test_what_cannot_be_meant_is_wrong_usage(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    job = book.open_job(small_job("a"))
    for wrong in (["--files", "--follow"], ["--state", "failed"], ["--files", "--state", "lost"]):
        assert told(capsys, job, *wrong, code=2)["error"]["type"] == "usage"
    assert said(capsys, "--json", job)[0] == 2 and said(capsys, "cancel", "--json")[0] == 2


@pytest.mark.parametrize("command", [(), ("show",), ("cancel",), ("pause",), ("resume",), ("retry",), ("forget",)])
def test_an_unknown_job_is_nothing_that_could_be_done(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert told(capsys, *command, "0f3c", code=3)["error"]["type"] == "unknown_job"


def test_a_job_is_paused_gone_on_with_cancelled_and_forgotten(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    job = book.open_job(small_job("a", "b"))
    assert told(capsys, "pause", job[:8])["state"] == "paused" and book.waiting(ALL_QUEUES) == 0
    assert told(capsys, "resume", job[:8])["state"] == "queued" and book.waiting(ALL_QUEUES) == 2
    assert told(capsys, "forget", job, code=3)["error"]["type"] == "job_unfinished"
    assert told(capsys, "cancel", job[:8])["counts"]["cancelled"] == 2
    assert told(capsys, "forget", job[:8]) == {"forgotten": job} and told(capsys) == {"jobs": []}


def test_following_ends_with_the_job_and_tells_of_failures(capsys: pytest.CaptureFixture[str], book: Book) -> None:
    good, bad = book.open_job(small_job("a")), book.open_job(small_job("b", "bad"))
    working = threading.Thread(target=do_all, args=[book])
    working.start()
    assert told(capsys, bad, "--follow", code=1)["counts"]["failed"] == 1
    assert told(capsys, good, "--follow")["state"] == "done"
    working.join()
    walked = NewJob(INGEST, tasks=[])
    gone = book.open_job(walked)
    with book.database.begin() as connection:
        result = {"ignored": 0, "failed": [{"path": "/gone", "reason": "there is no such file or folder"}]}
        connection.execute(sql.update(JOBS).where(JOBS.c.id == gone).values(result=result))
    assert told(capsys, gone, "--follow", code=1)["result"] == result and "/gone" in said(capsys, gone)[1]


def test_who_stops_following_leaves_the_job_to_go_on(
    capsys: pytest.CaptureFixture[str], book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    job = book.open_job(small_job("a"))
    monkeypatch.setattr("deploy.cli.jobs.time.sleep", interrupted)
    assert told(capsys, job, "--follow", code=130)["error"]["type"] == "interrupted"
    assert JobPages(book.database).page(job).state == "queued" and book.waiting(ALL_QUEUES) == 1


def test_without_workers_files_are_tried_again_here(
    capsys: pytest.CaptureFixture[str], book: Book, tmp_path: Path
) -> None:
    job = book.open_job(small_job("gone"))
    book.cancel(job)
    page = told(capsys, "retry", job[:8], code=1)
    assert page["again"] == 1 and page["asked"]["here"] is True and page["finished"]
    assert page["first_errors"][0]["reason"].startswith("cannot be read: there is no such file")
    done = book.open_job(small_job())
    assert told(capsys, "retry", done)["again"] == 0
    other = book.open_job(NewJob("evaluate"))
    assert told(capsys, "retry", other, code=3)["error"]["type"] == "job_unrepeatable"


def test_with_workers_they_are_rung_for(
    capsys: pytest.CaptureFixture[str], book: Book, stoppable_redis: StoppableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_BROKER_URL", stoppable_redis.url)
    job = book.open_job(small_job("a", "b"))
    book.cancel(job)
    page = told(capsys, "retry", job)
    assert page["again"] == 2 and page["state"] == "queued" and book.waiting(ALL_QUEUES) == 2
    stoppable_redis.stop()
    assert told(capsys, "resume", job)["state"] == "queued"  # workers look for themselves


# ---- the job page, the command and the database -------------------------------------------------


class Samples:
    """One job as the API, the command line and the database tell of it."""

    def __init__(self, house: House, client: TestClient, capsys: pytest.CaptureFixture[str], job: str) -> None:
        self.house, self.client, self.capsys, self.job = house, client, capsys, job
        self.compared: list[dict[str, int]] = []
        self._last = 0

    def stored(self) -> tuple[dict[str, int], str | None, bool]:
        """Files by state, what is told of the job as a whole, and whether it is finished: from the tables."""
        with self.house.work.book.database.connect() as connection:
            counted = sql.select(ITEMS.c.state, sql.func.count()).where(ITEMS.c.job == self.job).group_by(ITEMS.c.state)
            row = connection.execute(sql.select(JOBS).where(JOBS.c.id == self.job)).one()
            return dict(connection.execute(counted).all()), row.failure, row.finished is not None  # type: ignore[arg-type]

    def take(self) -> dict[str, Any]:
        """A sample: what was told between two equal looks at the tables is equal to them; all of it is consistent."""
        before = self.stored()
        page = self.client.get(f"/v1/jobs/{self.job}").json()
        command = told(self.capsys, self.job)
        listed = self.client.get("/v1/jobs").json()["jobs"][0]
        after = self.stored()
        for one in (page, command, listed):
            assert sum(one["counts"].values()) == one["files"] == 36
            assert (one["finished"] is not None) == (one["state"] == "done")
            ended = one["files"] - one["counts"]["waiting"] - one["counts"]["running"]
            assert ended >= self._last and one["counts"]["failed"] >= len(one["first_errors"])
            self._last = ended
            if before == after:
                assert {state: n for state, n in one["counts"].items() if n} == before[0]
                assert (one["error"], one["finished"] is not None) == before[1:]
        if before == after:
            clock = ("rate", "real_time", "remaining")
            assert {k: v for k, v in page.items() if k not in clock} == {
                k: v for k, v in command.items() if k not in clock
            }
            self.compared.append(page["counts"])
        return dict(page)


@pytest.fixture
def sampled(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Samples]:
    house = House(home)
    names = ["bad" if n % 6 == 5 else "known" if n % 6 == 4 else f"film{n}" for n in range(36)]
    job = house.work.hands.submit(small_job(*names))
    with TestClient(create_app(house.services, house.limits), LOCAL) as client:
        yield Samples(house, client, capsys, job)
    house.work.hands.close()


def test_page_command_and_database_agree_at_every_sample_of_a_run(sampled: Samples) -> None:
    steps = threading.Semaphore(0)
    reached = threading.Semaphore(0)

    def step(check: Callable[[], None]) -> None:
        reached.release()
        assert steps.acquire(timeout=PATIENCE)
        check()

    # at some files the run stands still, so that nothing changes between two looks; else it runs as it likes
    stops = ("film0", "film7", "film14", "film21", "film32")
    sampled.house.reader.orders |= dict.fromkeys(stops, step)
    sampled.house.work.hands.start()
    for _ in stops:
        assert reached.acquire(timeout=PATIENCE)
        assert sampled.take()["counts"]["running"] >= 1
        steps.release()
        for _ in range(2):
            sampled.take()
    deadline = time.monotonic() + PATIENCE
    while sampled.take()["finished"] is None:
        assert time.monotonic() < deadline
    last = sampled.take()
    assert last["counts"] == {"done": 24, "unchanged": 6, "failed": 6, "waiting": 0, "running": 0, "cancelled": 0}
    assert len(sampled.compared) >= len(stops) + 1
    assert len({json.dumps(counts) for counts in sampled.compared}) >= len(stops)


def test_a_job_that_is_cancelled_in_the_middle_is_told_alike(sampled: Samples) -> None:
    runner = Runner(sampled.house.work.book, work_of(sampled.house.reader), ())
    for _ in range(9):
        runner.run_one(ALL_QUEUES, "one")
    sampled.house.work.book.cancel(sampled.job)
    page, command = sampled.client.get(f"/v1/jobs/{sampled.job}").json(), told(sampled.capsys, sampled.job)
    assert page == command and page["state"] == "cancelled"
    assert {state: n for state, n in page["counts"].items() if n} == sampled.stored()[0]
