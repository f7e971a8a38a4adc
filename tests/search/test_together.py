"""Questions of several threads in one request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from search.together import Together


class Slow:
    """Doubles numbers, as slowly as it is told, and remembers what was asked together."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, kind: str, items: Sequence[int]) -> list[int]:
        self.calls.append((kind, list(items)))
        self.begun.release()
        assert self.go.acquire(timeout=30)
        if -1 in items:
            raise ValueError("no number")
        return [2 * item for item in items]


@pytest.fixture
def slow() -> Slow:
    return Slow()


def waiting(together: Together[str, int, int], count: int) -> None:
    """Return when so many questions wait."""
    clock = threading.Event()
    for _ in range(3000):
        if sum(map(len, together._waiting.values())) == count:
            return
        clock.wait(0.01)
    raise AssertionError("nobody waits")


def test_who_asks_alone_waits_for_nobody(slow: Slow) -> None:
    together: Together[str, int, int] = Together(slow)
    for _ in range(3):
        slow.go.release()
    assert together.ask("a", [1, 2]) == [2, 4] and together.ask("a", []) == [] and together.ask("b", [3]) == [6]
    assert slow.calls == [("a", [1, 2]), ("a", []), ("b", [3])] and not together._waiting


def test_what_is_asked_meanwhile_goes_into_the_next_request(slow: Slow) -> None:
    together: Together[str, int, int] = Together(slow, most=4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together.ask, "a", [0])
        slow.begun.acquire()
        later = []
        for number, items in enumerate(([1], [2, 3], [4], [5, 6, 7, 8, 9], [10])):
            later.append(pool.submit(together.ask, "a", items))
            waiting(together, number + 1)
        other = pool.submit(together.ask, "b", [100])  # another kind waits for nobody of this one
        slow.begun.acquire()
        for _ in range(20):
            slow.go.release()
        assert first.result(30) == [0] and other.result(30) == [200]
        assert [one.result(30) for one in later] == [[2], [4, 6], [8], [10, 12, 14, 16, 18], [20]]
    assert slow.calls == [
        ("a", [0]), ("b", [100]), ("a", [1, 2, 3, 4]), ("a", [5, 6, 7, 8, 9]), ("a", [10])
    ]  # fmt: skip
    assert not together._waiting


def test_a_failure_reaches_all_whose_request_it_was_and_nobody_else(slow: Slow) -> None:
    together: Together[str, int, int] = Together(slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together.ask, "a", [0])
        slow.begun.acquire()
        joined = []
        for items in ([1], [-1]):
            joined.append(pool.submit(together.ask, "a", items))
            waiting(together, len(joined))
        for _ in range(5):
            slow.go.release()
        assert first.result(30) == [0]
        for one in joined:
            with pytest.raises(ValueError, match="no number"):
                one.result(30)
    assert together.ask("a", [4]) == [8]


def test_many_threads_get_their_own_answers() -> None:
    together: Together[int, int, int] = Together(lambda kind, items: [kind * item for item in items], most=5)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda number: together.ask(number % 3, [number, number + 1]), range(500))
        assert list(answers) == [[(n % 3) * n, (n % 3) * (n + 1)] for n in range(500)]


def test_a_call_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room for an item"):
        Together(lambda kind, items: items, most=0)
