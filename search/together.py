"""Several threads' questions in one request: what is asked while another is answered goes together into the next.

An index takes hardly longer for a few probes than for one, so many who ask at once are answered by a few requests
instead of many. Who asks alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_ITEMS = 64


@dataclass(eq=False)
class _Asked(Generic[Item, Answer]):
    """What one thread asks, and what becomes of it."""

    items: Sequence[Item]
    told: threading.Event = field(default_factory=threading.Event)
    turn: bool = False  # it is this thread's turn to ask, for itself and for others who wait
    answers: list[Answer] | None = None
    error: BaseException | None = None


class Together(Generic[Kind, Item, Answer]):
    """Joins questions of one kind.

    Args:
        work: answers items of one kind, in order; called in the thread of one of those who ask.
        most: items of one call; a single question with more is still one call.
    """

    def __init__(
        self,
        work: Callable[[Kind, Sequence[Item]], Sequence[Answer]],
        *,
        most: int = MOST_ITEMS,
    ) -> None:
        if most < 1:
            raise ValueError(f"a call must have room for an item, got {most}")
        self._work, self._most = work, most
        self._waiting: dict[Kind, list[_Asked[Item, Answer]]] = {}
        self._lock = threading.Lock()

    def ask(self, kind: Kind, items: Sequence[Item]) -> list[Answer]:
        """The answers to some items, in order.

        Args:
            kind: only what is equal in it is asked together.
            items: what is asked.

        Raises:
            Whatever ``work`` raises: to everyone whose items were in that call.
        """
        mine: _Asked[Item, Answer] = _Asked(items)
        with self._lock:
            if kind in self._waiting:  # there is a list from when somebody asks until nobody waits any more
                self._waiting[kind].append(mine)
            else:
                self._waiting[kind], mine.turn = [], True
        if not mine.turn:
            mine.told.wait()
        if mine.turn:
            self._answer(kind, mine)
        if mine.error is not None:
            raise mine.error
        return mine.answers or []

    def _answer(self, kind: Kind, mine: _Asked[Item, Answer]) -> None:
        """Ask for oneself and for those who wait, then give the turn to one who came meanwhile."""
        batch = [mine, *self._companions(kind, self._most - len(mine.items))]
        try:
            answers = list(self._work(kind, [item for one in batch for item in one.items]))
            first = 0
            for one in batch:
                one.answers = answers[first : first + len(one.items)]
                first += len(one.items)
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs, in every thread that waits
            for one in batch:
                one.error = error
        finally:
            with self._lock:
                following = self._waiting[kind].pop(0) if self._waiting[kind] else None
                if following is not None:
                    following.turn = True
                else:
                    del self._waiting[kind]
            if following is not None:
                following.told.set()
            for one in batch[1:]:
                one.told.set()

    def _companions(self, kind: Kind, room: int) -> list[_Asked[Item, Answer]]:
        """Those who wait, oldest first, as far as there is room."""
        with self._lock:
            waiting = self._waiting[kind]
            taken = 0
            while taken < len(waiting) and len(waiting[taken].items) <= room:
                room -= len(waiting[taken].items)
                taken += 1
            companions = waiting[:taken]
            del waiting[:taken]
            return companions
