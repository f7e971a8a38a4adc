from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from search import idempotency
from search.idempotency import (
    KEPT,
    LEASE,
    Claim,
    IdempotencyMismatch,
    Replies,
    Reply,
    ReplyForgotten,
    RequestRunning,
)
from search.people import People

DONE = Reply(201, {"Location": "/there"}, '{"name": "Ada"}')


@pytest.fixture
def replies(database: Engine) -> Replies:
    return Replies(database)


def claimed(replies: Replies, key: str = "key", request: bytes = b"request") -> Claim:
    claim = replies.claim("caller", key, request)
    assert isinstance(claim, Claim)
    return claim


def pass_time(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    later = idempotency.now() + by
    monkeypatch.setattr(idempotency, "now", lambda: later)


def test_an_answer_is_kept_and_given_again(replies: Replies) -> None:
    replies.keep(claimed(replies), DONE)
    assert replies.claim("caller", "key", b"request") == DONE


def test_only_one_of_many_gets_a_claim(database: Engine) -> None:
    def attempt(_number: int) -> bool:
        try:
            return isinstance(Replies(database).claim("caller", "key", b"request"), Claim)
        except RequestRunning:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_another_request_with_the_key_is_refused_whether_the_first_is_done_or_not(replies: Replies) -> None:
    claim = claimed(replies)
    with pytest.raises(IdempotencyMismatch):
        replies.claim("caller", "key", b"another")
    replies.keep(claim, DONE)
    with pytest.raises(IdempotencyMismatch):
        replies.claim("caller", "key", b"another")


def test_a_claim_that_was_released_is_free_for_any_request(replies: Replies) -> None:
    replies.release(claimed(replies))
    assert claimed(replies, request=b"another").person == ""


def test_a_claim_that_nobody_renews_is_taken_over_with_what_was_done(
    replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claimed(replies)
    replies.bind(first, "p" * 32)
    pass_time(monkeypatch, LEASE + timedelta(seconds=1))
    second = claimed(replies)
    assert second.person == "p" * 32
    replies.keep(first, DONE)  # it was late: the claim is not its own any more
    with pytest.raises(RequestRunning):
        replies.claim("caller", "key", b"request")
    with pytest.raises(RequestRunning, match="took over"):
        replies.bind(first, "q" * 32)


def test_a_claim_that_is_renewed_is_kept(replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claimed(replies)
    pass_time(monkeypatch, LEASE - timedelta(seconds=1))
    replies.renew(claim)
    pass_time(monkeypatch, LEASE - timedelta(seconds=1))
    with pytest.raises(RequestRunning):
        replies.claim("caller", "key", b"request")


def test_an_answer_is_forgotten_after_a_day(replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    replies.keep(claimed(replies), DONE)
    pass_time(monkeypatch, KEPT + timedelta(seconds=1))
    assert claimed(replies, request=b"another")


def test_a_person_who_was_entered_before_the_cut_is_not_entered_twice(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = People(database)
    ada = people.create("Ada", claimed(people.replies))
    pass_time(monkeypatch, LEASE + timedelta(seconds=1))
    assert people.create("Ada", claimed(people.replies)) == ada
    assert len(people.everyone()) == 1


def test_who_lost_their_claim_enters_nobody(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    people = People(database)
    late = claimed(people.replies)
    pass_time(monkeypatch, LEASE + timedelta(seconds=1))
    claimed(people.replies)
    with pytest.raises(RequestRunning):
        people.create("Ada", late)
    assert people.everyone() == []


def test_nothing_of_a_person_stays_in_kept_answers_once_they_are_forgotten(
    database: Engine, database_bytes: Callable[[], bytes]
) -> None:
    people = People(database)
    claim = claimed(people.replies, "a key unmistakable", b"Annabel Unmistakable")
    ann = people.create("Annabel Unmistakable", claim)
    people.replies.keep(claim, Reply(201, {}, '{"name": "Annabel Unmistakable"}'))
    with database.begin() as connection:
        connection.execute(sql.text("ANALYZE"))
    people.begin_forgetting(ann)
    with pytest.raises(ReplyForgotten):
        people.replies.claim("caller", "a key unmistakable", b"Annabel Unmistakable")
    people.finish_forgetting(ann.id)
    assert b"nmistakable" not in database_bytes()


def test_answers_about_who_was_merged_go_with_the_other(database: Engine) -> None:
    people = People(database)
    claim = claimed(people.replies)
    people.replies.keep(claim, DONE)
    people.create("Ada", claim := claimed(people.replies, "second"))
    people.replies.keep(claim, DONE)
    bob = people.create("Bob")
    people.merge("Ada", "Bob")
    people.begin_forgetting(people.find("Bob"))
    with pytest.raises(ReplyForgotten):
        people.replies.claim("caller", "second", b"request")
    assert people.replies.claim("caller", "key", b"request") == DONE and bob.version == 1


def test_only_answers_of_what_was_done_are_kept() -> None:
    with pytest.raises(ValueError, match="status 409"):
        Reply(409, {}, "{}")
