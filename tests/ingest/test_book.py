from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from ingest.book import MOST_ATTEMPTS, Book
from ingest.flow import ingest_job
from ingest.jobpage import JobPages
from ingest.jobs import UnknownJob
from ingest.ledger import Ledger, open_database
from ingest.queues import ALL_QUEUES
from ingest.tasks import Claim, ItemState, LeaseLost, NewJob, NewTask, Outcome, Queue, TaskState
from tests.ingest.small_jobs import small_job

LONG = 60.0
READ = NewTask("read", Queue.ENCODE, {})


@pytest.fixture
def book(database: Engine) -> Book:
    return Book(database)


@pytest.fixture
def pages(book: Book) -> JobPages:
    return JobPages(book.database)


def claim(book: Book, holder: str = "one", lease: float = LONG, **what: str) -> Claim:
    claimed = book.claim(ALL_QUEUES, holder, lease, **what)
    assert claimed is not None
    return claimed


def names(book: Book, count: int) -> list[str]:
    return [str(claim(book, str(number)).arguments["path"]).rpartition("/")[2] for number in range(count)]


def test_a_task_is_claimed_by_one(book: Book) -> None:
    book.open_job(small_job("a"))
    assert claim(book).arguments == {"path": "/media/a"}
    assert book.claim(ALL_QUEUES, "two", LONG) is None


def test_many_who_claim_at_once_get_every_task_once(book: Book, database_url: str) -> None:
    book.open_job(small_job(*(f"{number:02}" for number in range(40))))
    claimed: list[str] = []

    def work(name: str) -> None:
        mine = Book(open_database(database_url))
        while (got := mine.claim(ALL_QUEUES, name, LONG)) is not None:
            claimed.append(got.arguments["path"])
        mine.database.dispose()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 40 and len(set(claimed)) == 40


def test_files_come_in_order_and_jobs_by_priority_then_age(book: Book) -> None:
    book.open_job(small_job("a", "b"))
    book.open_job(small_job("c"))
    book.open_job(small_job("urgent", priority=5))
    assert names(book, 4) == ["urgent", "a", "b", "c"]


def test_only_tasks_of_the_queues_asked_for_are_claimed(book: Book) -> None:
    book.open_job(small_job("a"))
    assert book.claim([Queue.ENCODE, Queue.EVALUATE], "one", LONG) is None
    assert book.claim([Queue.PROBE], "one", LONG) is not None


def test_a_lease_that_ran_out_goes_to_another_and_the_first_can_settle_nothing(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a"))
    late = claim(book, lease=0.001)
    time.sleep(0.01)
    assert book.take_back() == 1
    again = claim(book, "two")
    assert again.task == late.task and again.fence > late.fence and again.attempts == 0
    for settled in (lambda: book.settle(late, Outcome()), lambda: book.renew(late, LONG), lambda: book.release(late)):
        with pytest.raises(LeaseLost):
            settled()
    book.settle(again, Outcome(item=ItemState.DONE))
    assert pages.page(job).state == "done"


def test_a_renewed_lease_is_not_taken_back(book: Book) -> None:
    book.open_job(small_job("a"))
    held = claim(book, lease=0.001)
    book.renew(held, LONG)
    time.sleep(0.01)
    assert book.take_back() == 0


def test_what_follows_from_a_task_is_done_before_the_next_file_is_begun(book: Book) -> None:
    book.open_job(small_job("a", "b"))
    first = claim(book)
    book.settle(first, Outcome(next=[NewTask("read", Queue.ENCODE, {"path": "/media/a"}, first.item, rank=1)]))
    assert claim(book).kind == "read"


def test_a_task_waits_for_those_it_needs(book: Book) -> None:
    parts = [NewTask("part", Queue.ENCODE, {"number": number}) for number in range(2)]
    book.open_job(NewJob("ingest", tasks=[NewTask("join", Queue.ENCODE, {}, after=parts)]))
    one, other = claim(book), claim(book, "two")
    assert {one.kind, other.kind} == {"part"}
    book.settle(one, Outcome())
    assert book.claim(ALL_QUEUES, "three", LONG) is None
    book.settle(other, Outcome())
    assert claim(book).kind == "join"


def test_a_task_fails_five_times_and_its_file_is_a_failed_file(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a", "b"))
    for attempt in range(MOST_ATTEMPTS):
        held = now_claimable(book)
        assert held.attempts == attempt
        assert book.put_back(held, "ZeroDivisionError", counts=True) == (attempt == MOST_ATTEMPTS - 1)
    first, second = pages.files(job)
    assert (first.state, first.reason, first.attempts) == ("failed", "ZeroDivisionError", MOST_ATTEMPTS)
    assert second.state == "waiting" and pages.page(job).state == "running"
    assert Ledger(book.database).counts() == (0, 1)


def now_claimable(book: Book) -> Claim:
    """The first file's task, as soon as it may be tried again."""
    from ingest.book import TASKS

    with book.database.begin() as connection:
        connection.execute(TASKS.update().values(not_before=0.0))
    return claim(book)


def test_outages_do_not_count(book: Book) -> None:
    book.open_job(small_job("a"))
    for _ in range(2 * MOST_ATTEMPTS):
        assert not book.put_back(now_claimable(book), "the index is away", counts=False)
    assert now_claimable(book).attempts == 0


def test_a_task_that_waits_to_be_tried_again_lets_others_go_first(book: Book) -> None:
    book.open_job(small_job("a", "b"))
    book.put_back(claim(book), "busy", counts=False)
    assert names(book, 1) == ["b"]


def test_the_death_of_a_process_counts_once_and_only_while_it_held_a_task(book: Book) -> None:
    book.open_job(small_job("a"))
    claim(book, "child")
    loss = book.died("child", "killed")
    assert loss is not None and not loss.given_up
    assert book.died("child", "killed") is None and now_claimable(book).attempts == 1
    assert book.died("one", "stopped", counts=False) is not None
    assert now_claimable(book).attempts == 1


def test_a_paused_job_waits_and_goes_on(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a", "b"))
    held = claim(book)
    book.pause(job)
    assert pages.page(job).state == "paused" and book.claim(ALL_QUEUES, "two", LONG) is None
    assert book.waiting(ALL_QUEUES) == 0
    book.settle(held, Outcome(item=ItemState.DONE))
    book.resume(job)
    assert names(book, 1) == ["b"]


def test_a_cancelled_job_is_over_at_once_and_what_ran_counts_for_nothing(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a", "b"))
    held = claim(book)
    book.cancel(job)
    with pytest.raises(LeaseLost):
        book.renew(held, LONG)
    page = pages.page(job)
    assert page.state == "cancelled" and page.counts["cancelled"] == 2
    assert book.claim(ALL_QUEUES, "two", LONG) is None


def test_retry_does_the_failed_files_again_and_no_other(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a", "b"))
    book.settle(claim(book), Outcome(TaskState.FAILED, ItemState.FAILED, reason="is no film"))
    book.settle(claim(book), Outcome(item=ItemState.DONE))
    assert pages.page(job).state == "done" and pages.page(job).first_errors[0].reason == "is no film"
    assert book.retry(job, READ) == 1 and pages.page(job).state == "running"
    assert names(book, 1) == ["a"] and book.claim(ALL_QUEUES, "two", LONG) is None


def test_a_walk_adds_files_to_its_job(book: Book, pages: JobPages) -> None:
    job = book.open_job(NewJob("ingest", tasks=[NewTask("walk", Queue.PROBE, {})]))
    book.settle(claim(book), Outcome(result={"ignored": 3}, items=["/media/a", "/media/b"], item_task=READ))
    page = pages.page(job)
    assert page.files == 2 and page.result == {"ignored": 3} and page.state == "running"
    assert names(book, 2) == ["a", "b"]


def test_a_job_without_files_is_done(book: Book, pages: JobPages) -> None:
    assert pages.page(book.open_job(small_job())).state == "done"


def test_a_job_whose_own_task_is_given_up_has_failed(book: Book, pages: JobPages) -> None:
    job = book.open_job(NewJob("evaluate", tasks=[NewTask("measure", Queue.EVALUATE, {})]))
    for _ in range(MOST_ATTEMPTS):
        book.put_back(now_claimable(book), "no people", counts=True)
    assert pages.page(job).state == "failed" and pages.page(job).error == "no people"


def test_jobs_left_behind_by_a_process_of_their_own_are_cancelled_and_no_others(book: Book, pages: JobPages) -> None:
    from dataclasses import replace

    here = replace(small_job("a"), asked={"here": True})
    left, alive, others = book.open_job(here), book.open_job(here), book.open_job(small_job("b"))
    claim(book, job=alive)
    assert book.cancel_abandoned("ingest") == 1
    assert [pages.page(job).state for job in (left, alive, others)] == ["cancelled", "running", "queued"]


@pytest.mark.parametrize("doing", ["pause", "resume", "cancel", "forget"])
def test_a_job_that_nobody_gave_out_is_unknown(book: Book, doing: str) -> None:
    with pytest.raises(UnknownJob):
        getattr(book, doing)("0" * 32)


def test_who_works_for_a_job_that_was_forgotten_has_lost_its_task(book: Book) -> None:
    job = book.open_job(small_job("a"))
    held = claim(book)
    book.cancel(job)
    book.forget(job)
    with pytest.raises(LeaseLost):
        book.settle(held, Outcome())


def test_a_finished_job_can_be_forgotten(book: Book, pages: JobPages) -> None:
    job = book.open_job(small_job("a"))
    with pytest.raises(ValueError, match="not finished"):
        book.forget(job)
    book.cancel(job)
    book.forget(job)
    with pytest.raises(UnknownJob):
        pages.page(job)


def test_a_job_that_a_process_does_itself_is_nobody_elses(book: Book) -> None:
    mine = book.open_job(ingest_job([Path("/media/mine")], "films", here=True))
    assert book.waiting(ALL_QUEUES) == 0 and book.claim(ALL_QUEUES, "a worker", LONG) is None
    assert claim(book, job=mine).arguments["path"] == "/media/mine"


@pytest.mark.parametrize("here", [False, True])
def test_who_tries_a_job_again_says_who_does_it(book: Book, here: bool) -> None:
    job = book.open_job(ingest_job([Path("/media/a")], "films", here=not here))
    book.cancel(job)
    assert book.retry(job, READ, here=here) == 1
    assert (book.claim(ALL_QUEUES, "a worker", LONG) is None) is here


def test_a_job_is_finished_also_when_its_last_tasks_end_at_one_moment(database_url: str, pages: JobPages) -> None:
    books = [Book(open_database(database_url)) for _ in range(2)]
    for _ in range(15):
        parts = [NewTask("part", Queue.ENCODE, {"number": number}) for number in range(2)]
        job = books[0].open_job(NewJob("ingest", tasks=parts))
        held = [claim(book, str(number)) for number, book in enumerate(books)]
        together = threading.Barrier(2)

        def end(book: Book, mine: Claim, together: threading.Barrier = together) -> None:
            together.wait()
            book.settle(mine, Outcome())

        threads = [threading.Thread(target=end, args=pair) for pair in zip(books, held, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pages.page(job).state == "done"
    for book in books:
        book.database.dispose()


def test_the_death_of_a_process_counts_for_the_task_at_hand_not_for_one_it_lost(book: Book) -> None:
    book.open_job(small_job("a", "b"))
    claim(book, "child", lease=0.001)
    time.sleep(0.01)
    book.take_back()
    lost = claim(book, "other")  # "a" is somebody else's, or nobody's
    book.release(lost)
    with book.database.begin() as connection:
        from ingest.book import TASKS

        connection.execute(TASKS.update().where(TASKS.c.id == lost.task).values(holder="child", not_before=1e12))
    second = claim(book, "child")
    assert second.task != lost.task and book.died("child", "killed") is not None
    with pytest.raises(LeaseLost):
        book.renew(second, LONG)
