from __future__ import annotations

import json
import threading
import time

import pytest

from ingest.jobs import BoardFull, FileReport, Job, JobBoard, JobState, UnknownJob

DONE = FileReport("film.mp4", "done", "a" * 64, 2, 3, 12.5, None, ("truncated",))


def ended(board: JobBoard, identity: str) -> Job:
    deadline = time.monotonic() + 10
    while board.get(identity).state in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return board.get(identity)


def test_a_report_survives_json() -> None:
    assert FileReport.from_json(json.loads(json.dumps(DONE.to_json()))) == DONE


def test_a_report_of_a_later_version_with_more_fields_is_read() -> None:
    assert FileReport.from_json(DONE.to_json() | {"later": 1}) == DONE


def test_a_report_that_lacks_a_field_is_refused_by_its_name() -> None:
    document = DONE.to_json()
    del document["media"]
    with pytest.raises(ValueError, match="lacks media"):
        FileReport.from_json(document)


def test_a_report_fails_with_a_reason_and_only_then() -> None:
    with pytest.raises(ValueError, match="has a reason"):
        FileReport("a", "failed", None, 0, 0, 0.0, None)
    with pytest.raises(ValueError, match="has a reason"):
        FileReport("a", "done", None, 0, 0, 0.0, "why")
    with pytest.raises(ValueError, match="not 'odd'"):
        FileReport.from_json(DONE.to_json() | {"state": "odd"})


def test_a_job_is_queued_then_running_then_done() -> None:
    board, start, seen = JobBoard(), threading.Event(), threading.Event()

    def work() -> dict[str, str]:
        seen.set()
        start.wait(10)
        return {"answer": "unknown"}

    states: list[JobState] = []
    first, second = board.submit(work), board.submit(work)
    seen.wait(10)
    states += [board.get(first).state, board.get(second).state]
    start.set()
    assert ended(board, second) == Job(second, "done", {"answer": "unknown"})
    assert states == ["running", "queued"]
    board.close()


def test_a_job_that_raises_has_failed_with_what_it_raised() -> None:
    board = JobBoard()
    job = ended(board, board.submit(lambda: {"answer": [][0]}))
    assert job.state == "failed"
    assert isinstance(job.failure, IndexError)
    board.close()


def test_a_full_board_takes_no_more() -> None:
    board, start = JobBoard(most_waiting=1), threading.Event()
    board.submit(lambda: {"started": start.wait(10)})
    with pytest.raises(BoardFull):
        board.submit(dict)
    start.set()
    board.close()


def test_the_oldest_finished_job_is_forgotten_first() -> None:
    board = JobBoard(most_finished=1)
    jobs = [board.submit(dict)]
    for _ in range(2):
        ended(board, jobs[-1])
        jobs.append(board.submit(dict))
    ended(board, jobs[-1])
    with pytest.raises(UnknownJob):
        board.get(jobs[0])
    assert board.get(jobs[1]).state == "done"
    board.close()


def test_what_comes_afterwards_comes_once_also_for_a_job_that_never_ran() -> None:
    board, running, start, cleaned = JobBoard(), threading.Event(), threading.Event(), []

    def work() -> dict[str, bool]:
        running.set()
        return {"started": start.wait(10)}

    first = board.submit(work, afterwards=lambda: cleaned.append("ran"))
    second = board.submit(dict, afterwards=lambda: cleaned.append("never ran"))
    running.wait(10)
    closing = threading.Thread(target=board.close)
    closing.start()
    ended(board, second)
    start.set()
    closing.join(10)
    assert board.get(first).state == "done"
    assert board.get(second).state == "failed"
    assert sorted(cleaned) == ["never ran", "ran"]
