"""Pictures of an invented person's face, under a pose, a light and an expression.

The head is a relief (:mod:`~training.population.head`) that is turned, lit by a lamp and photographed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from training.population.features import Expression
from training.population.head import draw_head
from training.population.looks import Colour, looks_of
from training.population.people import Person
from training.population.relief import EXTENT, Plane, Relief, fractal_noise


@dataclass(frozen=True)
class Light:
    """A lamp before the face and the light of the room.

    Args:
        azimuth: radians, positive from the picture's right, about -1.2 to 1.2.
        elevation: radians above the eyes, about -0.2 to 1.2.
        room: share of light that comes from everywhere, 0 to 1.
        brightness: 1 is a good exposure, 0.5 to 1.5.
        tint: colour of the lamp.
    """

    azimuth: float = -0.5
    elevation: float = 0.5
    room: float = 0.45
    brightness: float = 1.0
    tint: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """How one picture is taken.

    Args:
        yaw: head turned to the picture's right, radians, -0.6 to 0.6.
        pitch: head bowed, radians, -0.4 to 0.4.
        roll: head tilted clockwise, radians.
        light: lamp and room.
        expression: what the face is doing.
        noise: sensor noise, deviation in grey levels, 0 to 20.
        blur: deviation of the blur in pixels, 0 for none.
        occlusion: share of the face's height hidden from below, 0 to 0.5.
        background: colour of the wall behind.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light: Light = field(default_factory=Light)
    expression: Expression = field(default_factory=Expression)
    noise: float = 0.0
    blur: float = 0.0
    occlusion: float = 0.0
    background: Colour = (0.35, 0.36, 0.38)


def draw_view(random: np.random.Generator) -> View:
    """Draw an everyday view: turned a little, lit somehow, not quite still."""

    def around(deviation: float, limit: float) -> float:
        return float(np.clip(random.normal(0, deviation), -limit, limit))

    warm = around(0.05, 0.12)
    light = Light(
        azimuth=around(0.42, 0.9),
        elevation=0.35 + around(0.2, 0.4),
        room=float(random.uniform(0.35, 0.65)),
        brightness=float(random.uniform(0.75, 1.25)),
        tint=(1 + warm, 1.0, 1 - warm),
    )
    expression = Expression(
        mouth=max(0.0, around(0.25, 0.6)),
        smile=around(0.4, 1.0),
        eyes=1.0 + around(0.1, 0.25),
        brows=around(0.2, 0.6),
        gaze=around(0.4, 0.9),
    )
    wall = random.uniform(0.05, 0.6) * random.uniform(0.75, 1.25, 3)
    return View(
        yaw=around(0.17, 0.38),
        pitch=around(0.1, 0.22),
        roll=around(0.07, 0.18),
        light=light,
        expression=expression,
        noise=float(random.uniform(0, 6)),
        blur=float(random.uniform(0, 0.7)),
        background=(float(wall[0]), float(wall[1]), float(wall[2])),
    )


def render_face(person: Person, view: View, side: int = 256, seed: int = 0) -> NDArray[np.uint8]:
    """Take a picture.

    Args:
        person: who.
        view: how.
        side: height and width of the picture in pixels, at least 64; the face is about half as wide.
        seed: starts the grain of the sensor and of the wall.

    Returns:
        (side, side, 3) uint8 RGB.

    Raises:
        ValueError: if ``side`` is below 64.
    """
    head, cover = render_head(person, view, side)
    random = np.random.default_rng([seed, side])
    wall = np.asarray(view.background, np.float32) * (1 + 0.15 * fractal_noise(random, side, (3, 3), 4)[..., None])
    picture = encode_light(wall * view.light.brightness) * (1 - cover[..., None]) + head * cover[..., None]
    if view.blur > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), max(view.blur, 0.1))
    if view.noise > 0:
        picture = picture + view.noise * random.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def render_head(person: Person, view: View, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Render a head alone, to be laid over something.

    Returns:
        (side, side, 3) float32 RGB, 0 to 255, and (side, side) float32 cover, 0 to 1.

    Raises:
        ValueError: if ``side`` is below 64.
    """
    if side < 64:
        raise ValueError(f"a face needs at least 64 pixels a side, got {side}")
    relief = draw_head(looks_of(person), view.expression, side, person.seed)
    rotation = _rotation(view)
    lit = _shade(relief, rotation, view.light) * _exposure(looks_of(person).skin.tone)
    map_x, map_y = _turn(relief.height, rotation, side)
    layers: NDArray[np.float32] = np.dstack([encode_light(lit), relief.cover])
    turned = cv2.remap(layers, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    colour, cover = turned[..., :3], turned[..., 3]
    if view.occlusion > 0:
        _hide(colour, cover, view.occlusion, looks_of(person).hair.clothes)
    return colour, cover


def encode_light(linear: Plane) -> NDArray[np.float32]:
    """Linear light (1 is white) to display values, 0 to 255, with soft highlights."""
    soft = linear / (1 + 0.25 * linear) * 1.25
    return (255 * np.sqrt(np.clip(soft, 0, 1))).astype(np.float32)


def _rotation(view: View) -> NDArray[np.float32]:
    """(3, 3) matrix from head to camera axes: x right, y down, z towards the camera."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in (view.yaw, view.pitch, view.roll))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotation: NDArray[np.float32] = (roll @ pitch @ yaw).astype(np.float32)
    return rotation


def _exposure(tone: Colour) -> float:
    """Who photographs a dark face opens the aperture, though not all the way."""
    return float((0.45 / (0.3 * tone[0] + 0.6 * tone[1] + 0.1 * tone[2])) ** 0.3)


def _shade(relief: Relief, rotation: NDArray[np.float32], light: Light) -> NDArray[np.float32]:
    """Lambert's law, a little gloss, and darkness in the hollows."""
    height, unit = relief.height, relief.unit
    smooth = cv2.GaussianBlur(height, (0, 0), 0.008 * unit)
    slope_x = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 1, 0) * (unit / 8), -3, 3)
    slope_y = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 0, 1) * (unit / 8), -3, 3)
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    level = np.cos(light.elevation)
    direction = (np.sin(light.azimuth) * level, -np.sin(light.elevation), np.cos(light.azimuth) * level)
    lamp = np.array(direction, np.float32)
    # The lamp as the head sees it: turning the head under a fixed lamp must change the shading.
    towards = rotation.T @ lamp
    between = lamp + np.array([0, 0, 1], np.float32)
    half_way = rotation.T @ between / np.linalg.norm(between)
    lambert = np.maximum(0, (towards[2] - towards[0] * slope_x - towards[1] * slope_y) / length)
    shine = np.maximum(0, (half_way[2] - half_way[0] * slope_x - half_way[1] * slope_y) / length) ** 24
    hollow = np.clip(1 - 3.5 * np.maximum(0, cv2.GaussianBlur(height, (0, 0), 0.06 * unit) - height), 0.35, 1)
    sky = 0.8 + 0.2 * np.clip(-slope_y / length, -1, 1)
    amount = light.room * hollow * sky + (1.25 - light.room) * lambert * np.sqrt(hollow)
    tint = np.asarray(light.tint, np.float32) * light.brightness
    lit: NDArray[np.float32] = (relief.colour * amount[..., None] + (relief.gloss * shine)[..., None]) * tint
    return lit


def _turn(height: Plane, rotation: NDArray[np.float32], side: int) -> tuple[Plane, Plane]:
    """For each pixel of the picture, where on the canvas it looks: two (side, side) float32 maps."""
    middle, unit = (side - 1) / 2, side / EXTENT
    steps = (np.arange(side, dtype=np.float32) - middle) / unit
    seen_x, seen_y = np.meshgrid(steps, steps)
    flat = np.linalg.inv(rotation[:2, :2])
    # A fixed point needs a gentle surface: steep edges would throw it from side to side.
    gentle = cv2.GaussianBlur(height, (0, 0), 0.02 * unit) - np.float32(0.25)
    out = np.full_like(height, 0.2)
    for _ in range(4):
        left_x, left_y = seen_x - rotation[0, 2] * out, seen_y - rotation[1, 2] * out
        x, y = flat[0, 0] * left_x + flat[0, 1] * left_y, flat[1, 0] * left_x + flat[1, 1] * left_y
        map_x, map_y = (x * unit + middle).astype(np.float32), (y * unit + middle).astype(np.float32)
        out = 0.5 * out + 0.5 * cv2.remap(gentle, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return map_x, map_y


def _hide(colour: NDArray[np.float32], cover: Plane, share: float, cloth: Colour) -> None:
    """Lay a scarf over the lower part of the face."""
    side = len(cover)
    top = int((0.85 - 0.45 * share) * side)
    fold = 0.8 + 0.2 * np.sin(np.arange(side - top, dtype=np.float32) * (60 / side))
    colour[top:] = encode_light(np.asarray(cloth, np.float32) * 0.7) * fold[:, None, None]
    cover[top:] = np.maximum(cover[top:], (cover[top:] > 0.2).astype(np.float32))
