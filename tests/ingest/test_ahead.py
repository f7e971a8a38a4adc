"""A thread that works ahead: the same items, the same errors, and nothing left of it."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from ingest.ahead import ahead


class Numbers:
    """An iterator that knows how far it came, who ran it and whether it was closed."""

    def __init__(self, count, error=None):
        self.count, self.error = count, error
        self.made, self.closed, self.thread = 0, False, None

    def __iter__(self):
        return self

    def __next__(self):
        self.thread = threading.current_thread()
        if self.made == self.count:
            raise self.error or StopIteration
        self.made += 1
        return self.made

    def close(self):
        self.closed = True


def test_items_come_in_their_order_from_another_thread():
    numbers = Numbers(100)
    assert list(ahead(numbers, 3)) == list(range(1, 101))
    assert numbers.thread is not threading.current_thread() and not numbers.thread.is_alive()


def test_what_is_raised_there_is_raised_here_after_what_came_before():
    got = []
    with pytest.raises(KeyError, match="broken"):
        got.extend(ahead(Numbers(5, KeyError("broken")), 2))
    assert got == [1, 2, 3, 4, 5]


def test_no_more_is_made_than_may_wait():
    numbers = Numbers(1000)
    with closing(ahead(numbers, 4)) as items:
        assert next(items) == 1
        made = numbers.made
    assert made <= 1 + 4 + 1 and numbers.made <= 1 + 4 + 4


@pytest.mark.parametrize("most", [1, 50])
def test_closing_it_ends_the_thread_and_closes_the_iterator(most):
    numbers = Numbers(10)
    with closing(ahead(numbers, most)) as items:
        next(items)
    assert numbers.closed and not numbers.thread.is_alive()


def test_a_generator_is_closed_where_it_ran():
    ended = []

    def numbers():
        try:
            yield from range(1000)
        finally:
            ended.append(threading.current_thread())

    with closing(ahead(numbers(), 2)) as items:
        assert next(items) == 0
    assert len(ended) == 1 and ended[0] is not threading.current_thread()
