"""Films of invented people: a scene's pictures and sound, written to a file, and the truth about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ingest.media import write_film
from training.population.faces import View, draw_view, encode_light, render_head
from training.population.features import Expression
from training.population.people import Person
from training.population.relief import EXTENT, LEFT, TOP, fractal_noise
from training.population.scenes import Box, Scene, Shot, Truth, Turn, Visible
from training.population.voices import SAMPLE_RATE, background_noise

Picture = NDArray[np.uint8]

MOUTHS = (0.0, 0.25, 0.5, 0.85)
"""How far the mouth is open in the few renderings that a shot makes do with."""

_FACE_LEFT, _FACE_TOP, _FACE_RIGHT, _FACE_BOTTOM = -0.66, -0.36, 0.66, 0.96


@dataclass(frozen=True)
class Camera:
    """How a film is taken: pixels, pictures a second, and the room's noise in dBFS."""

    width: int = 640
    height: int = 360
    fps: float = 25.0
    noise_dbfs: float = -60.0


@dataclass(frozen=True, eq=False)
class _Actor:
    """Somebody in a shot, rendered once per mouth state and once with closed eyes.

    ``states``: (side, side, 4) uint8, RGB times cover, and cover.
    """

    person: Person
    states: tuple[Picture, ...]
    blink: Picture
    left: float
    top: float
    phase: float

    def sway(self, time: float) -> tuple[float, float]:
        """Pixels by which the head has moved, across and down."""
        side = len(self.blink)
        across = 0.012 * np.sin(1.3 * time + self.phase) + 0.006 * np.sin(2.9 * time + 2 * self.phase)
        return float(side * across), float(side * 0.006 * np.sin(1.9 * time + 3 * self.phase))

    def box(self) -> Box:
        """Where the face mostly is, in pixels of the picture."""
        unit = len(self.blink) / EXTENT
        across, down = self.left - LEFT * unit, self.top - TOP * unit
        return (
            across + _FACE_LEFT * unit,
            down + _FACE_TOP * unit,
            across + _FACE_RIGHT * unit,
            down + _FACE_BOTTOM * unit,
        )


def make_film(path: Path, scene: Scene, seed: int, camera: Camera = Camera()) -> Truth:
    """Render a scene and write it as an MP4 film; the same arguments give the same pictures and sound.

    Returns:
        The truth: who is seen where and when, who speaks when.

    Raises:
        OSError: if the file cannot be written.
    """
    casts = [_seat(shot, camera, seed, index) for index, shot in enumerate(scene.shots)]
    write_film(path, _frames(scene, casts, camera, seed), camera.fps, mix_sound(scene, camera, seed), SAMPLE_RATE)
    visible = tuple(
        Visible(actor.person.name, shot.start, shot.end, actor.box())
        for shot, cast in zip(scene.shots, casts, strict=True)
        for actor in cast
    )
    return Truth(tuple(p.name for p in scene.people), scene.duration, visible, scene.speech())


def mix_sound(scene: Scene, camera: Camera, seed: int) -> NDArray[np.float32]:
    """The film's sound: (n,) float32 mono at 16 kHz, every turn in its place over the room's noise."""
    count = round(scene.duration * SAMPLE_RATE)
    sound = background_noise(count, camera.noise_dbfs, np.random.default_rng([seed, 13]))
    for turn in scene.turns:
        start = round(turn.start * SAMPLE_RATE)
        sound[start : start + len(turn.sound)] += turn.sound[: count - start]
    return np.clip(sound, -1, 1)


def _seat(shot: Shot, camera: Camera, seed: int, index: int) -> tuple[_Actor, ...]:
    """Place and render everybody in a shot, all under one light."""
    random = np.random.default_rng([seed, index, 14])
    light = draw_view(random).light
    share = (1.0, 0.90, 0.78)[len(shot.cast) - 1]
    side = max(64, round(camera.height * share * random.uniform(0.92, 1.04)))
    actors = []
    for place, person in enumerate(shot.cast):
        view = draw_view(random)
        calm = replace(view.expression, smile=0.5 * view.expression.smile, brows=0.5 * view.expression.brows)
        # In company people hold themselves straighter than in snapshots.
        view = replace(view, yaw=0.7 * view.yaw, roll=0.6 * view.roll, light=light, expression=calm)
        middle = camera.width * (place + 0.65) / (len(shot.cast) + 0.3)
        left = middle + float(random.uniform(-0.03, 0.03)) * camera.width - side / 2
        actors.append(_render_actor(person, view, side, (left, camera.height - 0.97 * side), random))
    return tuple(actors)


def _render_actor(
    person: Person, view: View, side: int, place: tuple[float, float], random: np.random.Generator
) -> _Actor:
    def look(expression: Expression) -> Picture:
        colour, cover = render_head(person, replace(view, expression=expression), side)
        return np.round(np.dstack([colour * cover[..., None], 255 * cover])).clip(0, 255).astype(np.uint8)

    states = tuple(look(replace(view.expression, mouth=mouth)) for mouth in MOUTHS)
    blink = look(replace(view.expression, mouth=0.0, eyes=0.12))
    return _Actor(person, states, blink, *place, phase=float(random.uniform(0, 6.28)))


def _frames(scene: Scene, casts: list[tuple[_Actor, ...]], camera: Camera, seed: int) -> Iterator[Picture]:
    """The film's pictures in order."""
    mouths = {turn.start: _openness(turn, camera.fps) for turn in scene.turns}
    walls = [_wall(camera, np.random.default_rng([seed, index, 15])) for index in range(len(casts))]
    for number in range(round(scene.duration * camera.fps)):
        time = number / camera.fps
        index = max(i for i, shot in enumerate(scene.shots) if shot.start <= time)
        speaking = next((turn for turn in scene.turns if turn.start <= time < turn.end), None)
        picture = walls[index].copy()
        for actor in casts[index]:
            state = actor.states[0]
            if speaking is not None and speaking.person == actor.person:
                steps = mouths[speaking.start]
                state = actor.states[int(steps[min(len(steps) - 1, int((time - speaking.start) * camera.fps))])]
            elif (time + actor.phase) % 3.7 < 0.12:
                state = actor.blink
            _lay_over(picture, state, actor, time)
        yield picture


def _openness(turn: Turn, fps: float) -> NDArray[np.int64]:
    """Which mouth state each picture of a turn shows: it follows the loudness of the words."""
    count = max(1, int(np.ceil((turn.end - turn.start) * fps)))
    step = SAMPLE_RATE / fps
    edges = np.minimum((np.arange(count + 1) * step).astype(int), len(turn.sound))
    pieces = [turn.sound[start:end] for start, end in pairwise(edges)]
    level = np.array([np.sqrt(np.mean(piece**2)) if len(piece) else 0.0 for piece in pieces])
    relative = level / max(1e-6, float(np.percentile(level, 90)))
    return np.digitize(relative, (0.12, 0.45, 0.85)).astype(np.int64)


def _wall(camera: Camera, random: np.random.Generator) -> Picture:
    """A room behind the people: plaster, and things out of focus."""
    side = max(camera.width, camera.height)
    tone = random.uniform(0.06, 0.45) * random.uniform(0.8, 1.2, 3)
    plaster = 1 + 0.18 * fractal_noise(random, side, (3, 4), 5)[: camera.height, : camera.width, None]
    wall = (tone * plaster).astype(np.float32)
    for _ in range(4):
        x, y = int(random.integers(camera.width)), int(random.integers(camera.height))
        size = (int(random.integers(40, 160)), int(random.integers(40, 160)))
        thing = tuple(float(value) for value in random.uniform(0.04, 0.5) * random.uniform(0.7, 1.3, 3))
        cv2.rectangle(wall, (x, y), (x + size[0], y + size[1]), thing, -1)
    blurred = cv2.GaussianBlur(wall, (0, 0), 4.0).astype(np.float32)
    return encode_light(blurred).astype(np.uint8)


def _lay_over(picture: Picture, state: Picture, actor: _Actor, time: float) -> None:
    """Put a rendered head where it is at this moment, in place."""
    across, down = actor.sway(time)
    left, top = actor.left + across, actor.top + down
    whole_left, whole_top = int(np.floor(left)), int(np.floor(top))
    shift = np.array([[1, 0, left - whole_left], [0, 1, top - whole_top]], np.float32)
    side = len(state)
    moved = cv2.warpAffine(state, shift, (side, side), flags=cv2.INTER_LINEAR)
    rows = slice(max(0, whole_top), min(picture.shape[0], whole_top + side))
    columns = slice(max(0, whole_left), min(picture.shape[1], whole_left + side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = moved[rows.start - whole_top : rows.stop - whole_top, columns.start - whole_left : columns.stop - whole_left]
    through = cv2.cvtColor(255 - part[..., 3], cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(picture[rows, columns], through, scale=1 / 255)
    picture[rows, columns] = cv2.add(behind, np.ascontiguousarray(part[..., :3]))
