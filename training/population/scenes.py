"""Who is seen when and who speaks when: the plan of a film, and its truth.

Seconds count from the film's start. Every film has silence between turns; with two people or more some
turn is spoken off screen while somebody else is seen, mute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.population.people import Person
from training.population.voices import SAMPLE_RATE, draw_delivery, speak

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Visible:
    """Somebody's face is in the picture; ``box`` is left, top, right, bottom in pixels, where it mostly is."""

    person: str
    start: float
    end: float
    box: Box


@dataclass(frozen=True)
class Spoken:
    """Somebody speaks; ``on_screen`` if their face is seen for most of it."""

    person: str
    start: float
    end: float
    on_screen: bool


@dataclass(frozen=True)
class Truth:
    """What a film holds, as the one who made it knows it."""

    people: tuple[str, ...]
    duration: float
    visible: tuple[Visible, ...]
    speech: tuple[Spoken, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, times rounded to milliseconds and boxes to tenths of a pixel."""
        return {
            "people": list(self.people),
            "duration": round(self.duration, 3),
            "visible": [
                {
                    "person": one.person,
                    "start": round(one.start, 3),
                    "end": round(one.end, 3),
                    "box": [round(side, 1) for side in one.box],
                }
                for one in self.visible
            ],
            "speech": [
                {
                    "person": one.person,
                    "start": round(one.start, 3),
                    "end": round(one.end, 3),
                    "on_screen": one.on_screen,
                }
                for one in self.speech
            ],
        }


@dataclass(frozen=True, eq=False)
class Turn:
    """One person's words: (n,) float32 mono at 16 kHz, beginning at ``start`` seconds."""

    person: Person
    start: float
    sound: NDArray[np.float32]

    @property
    def end(self) -> float:
        """When the last sample sounds."""
        return self.start + len(self.sound) / SAMPLE_RATE


@dataclass(frozen=True)
class Shot:
    """One camera position: the people before it, from left to right."""

    start: float
    end: float
    cast: tuple[Person, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """The plan of a film: shots without gaps from 0 to ``duration``, and turns that do not overlap."""

    people: tuple[Person, ...]
    duration: float
    shots: tuple[Shot, ...]
    turns: tuple[Turn, ...]

    def speech(self) -> tuple[Spoken, ...]:
        """The truth about the turns."""
        return tuple(
            Spoken(turn.person.name, turn.start, turn.end, self._seen(turn) > 0.5 * (turn.end - turn.start))
            for turn in self.turns
        )

    def _seen(self, turn: Turn) -> float:
        return sum(
            max(0.0, min(shot.end, turn.end) - max(shot.start, turn.start))
            for shot in self.shots
            if turn.person in shot.cast
        )


def plan_scene(people: Sequence[Person], seconds: float, seed: int) -> Scene:
    """Plan a film of several turns and shots.

    Args:
        people: one to three.
        seconds: about how long; turns are not cut off, so that it may be some seconds longer.
        seed: at least 0.

    Raises:
        ValueError: if there are no people or more than three.
    """
    if not 1 <= len(people) <= 3:
        raise ValueError(f"a film has one to three people, got {len(people)}")
    random = np.random.default_rng([seed, 11])
    turns = _plan_turns(people, seconds, random)
    duration = max(seconds, turns[-1].end + 0.6)
    shots = _plan_shots(people, turns, duration, random)
    return Scene(tuple(people), duration, shots, turns)


def plan_portrait(person: Person, seconds: float, seed: int) -> Scene:
    """Plan one shot in which one person says as many sentences as fit, at least one."""
    random = np.random.default_rng([seed, 12])
    turns = [Turn(person, 0.35, speak(person, draw_delivery(random)))]
    while True:
        following = Turn(person, turns[-1].end + 0.45, speak(person, draw_delivery(random)))
        if following.end + 0.3 > seconds:
            break
        turns.append(following)
    duration = max(seconds, turns[-1].end + 0.3)
    return Scene((person,), duration, (Shot(0.0, duration, (person,)),), tuple(turns))


def _plan_turns(people: Sequence[Person], seconds: float, random: np.random.Generator) -> tuple[Turn, ...]:
    """Everybody speaks in turn, with a pause before each, until the time is up and all have spoken."""
    turns: list[Turn] = []
    now = float(random.uniform(0.7, 1.2))
    order = [people[int(index)] for index in random.permutation(len(people))]
    while now < seconds - 3.0 or len(turns) < len(people):
        person = order[len(turns) % len(order)]
        turn = Turn(person, now, speak(person, draw_delivery(random, int(random.integers(1, 3)))))
        turns.append(turn)
        now = turn.end + float(random.uniform(0.6, 1.3))
    return tuple(turns)


def _plan_shots(
    people: Sequence[Person], turns: Sequence[Turn], duration: float, random: np.random.Generator
) -> tuple[Shot, ...]:
    """A new shot in the pause before each turn; the second turn is spoken off screen if it can be."""
    shots: list[Shot] = []
    for index, turn in enumerate(turns):
        start = 0.0 if index == 0 else (turns[index - 1].end + turn.start) / 2
        end = duration if index == len(turns) - 1 else (turn.end + turns[index + 1].start) / 2
        others = [person for person in people if person != turn.person]
        if others and index == 1:
            cast = others[:1]
        elif others and (index == 0 or random.random() < 0.5):
            cast = [turn.person, *others][: 2 if random.random() < 0.6 else 3]
        else:
            cast = [turn.person]
        # From left to right as in the list of people, so that nobody changes seats between shots.
        shots.append(Shot(start, end, tuple(person for person in people if person in cast)))
    return tuple(shots)
