"""A head as a relief: bare skull, skin and shoulders, with features and hair laid on.

Pose and light come later, in :mod:`~training.population.faces`.
"""

from __future__ import annotations

import numpy as np

from training.population.features import Expression, draw_brow, draw_eye, draw_mouth, draw_nose
from training.population.hair import draw_back_hair, draw_beard, draw_glasses, draw_hair
from training.population.looks import Looks, mix
from training.population.relief import Plane, Relief, fractal_noise, head_outline, head_widths


def draw_head(looks: Looks, expression: Expression, side: int, seed: int) -> Relief:
    """Draw a head on a canvas of ``side`` pixels; ``seed`` starts its own textures."""
    relief, random = Relief(side), np.random.default_rng([seed, 7])
    jaw = 0.11 * expression.mouth
    outline = head_outline(relief, looks.bones, jaw)
    strands = fractal_noise(random, side, (5, 40), 3)
    curls = fractal_noise(random, side, (24, 24), 2)
    tuft = (1 - looks.hair.curl) * strands + looks.hair.curl * curls
    _draw_shoulders(relief, looks)
    draw_back_hair(relief, looks.hair, looks.bones, tuft)
    _draw_ears(relief, looks)
    _draw_skull(relief, looks, outline, jaw)
    mottle = fractal_noise(random, side, (6, 6), 4)
    specks = fractal_noise(random, side, (56, 56), 2)
    _draw_skin(relief, looks, outline, (mottle, specks))
    draw_nose(relief, looks.nose, looks.skin, looks.eyes.height)
    draw_mouth(relief, looks.mouth, looks.skin, expression)
    draw_beard(relief, looks, expression, tuft, specks)
    for side_sign in (-1, 1):
        draw_eye(relief, looks.eyes, looks.skin, expression, side_sign)
        draw_brow(relief, looks, expression, side_sign, strands)
    _draw_wrinkles(relief, looks, expression)
    draw_hair(relief, looks.hair, looks.bones, tuft)
    draw_glasses(relief, looks)
    return relief


def _draw_shoulders(relief: Relief, looks: Looks) -> None:
    neck_half = 0.62 * looks.bones.jaw * looks.bones.width + 0.06
    neck = relief.soft(neck_half - np.abs(relief.x)) * relief.soft(relief.y - 0.4)
    relief.paint(neck, mix(looks.skin.tone, (0, 0, 0), 0.25))
    round_neck = 0.45 * np.sqrt(np.maximum(0, 1 - (relief.x / neck_half) ** 2)) - 0.25
    relief.height += neck * (round_neck - 0.1 - relief.height)
    top = 1.12 + 0.25 * np.maximum(0, np.abs(relief.x) - neck_half) ** 1.3 - 0.05 * (np.abs(relief.x) < neck_half)
    # The arms fall away before the canvas ends, so that a head laid over a film shows no cut edge.
    top = top + 3.0 * np.maximum(0, np.abs(relief.x) - 0.85) ** 2
    body = relief.soft(relief.y - top)
    relief.paint(body, looks.hair.clothes)
    relief.height += body * (0.3 * np.cos(relief.x) - 0.2 - relief.height)
    relief.cover = np.maximum(neck, body)


def _draw_ears(relief: Relief, looks: Looks) -> None:
    if looks.hair.length > 0.55:
        return
    for sign in (-1, 1):
        x, y = sign * (looks.bones.width + 0.01), 0.02
        rows, columns = relief.window(x, y, 0.25, 0.35)
        wide, high = 0.085 * looks.bones.ear, 0.19 * looks.bones.ear
        across, along = (relief.x[:, columns] - x) / wide, (relief.y[rows] - y) / high
        radius = np.sqrt(across**2 + along**2)
        mask = relief.soft((1 - radius) * wide)
        relief.paint(mask, mix(looks.skin.tone, (0.5, 0.12, 0.10), 0.15), (rows, columns))
        rim = 0.06 * np.exp(-(((radius - 0.8) / 0.2) ** 2)) - 0.10
        relief.height[rows, columns] += mask * (rim - relief.height[rows, columns])
        relief.cover[rows, columns] = np.maximum(relief.cover[rows, columns], mask)


def _draw_skull(relief: Relief, looks: Looks, outline: Plane, jaw: float) -> None:
    bones, width = looks.bones, head_widths(looks.bones, jaw, relief.y)
    across = np.clip(np.abs(relief.x) / np.maximum(width, 1e-3), 0, 1)
    depth = bones.depth * np.sqrt(np.clip(width / bones.width, 0, 1.2))
    surface = depth * (1 - across**2.2) ** 0.55 - 0.1
    mask = relief.soft(outline)
    relief.height += mask * (surface - relief.height)
    relief.cover = np.maximum(relief.cover, mask)
    relief.paint(mask, looks.skin.tone)
    relief.gloss = mask * looks.skin.gloss
    relief.bump(0, bones.chin_end + jaw - 0.14, 0.13, 0.10, bones.chin_ball)
    relief.bump(0, looks.eyes.height - 0.16, 0.34, 0.07, bones.brow_ridge)
    for sign in (-1, 1):
        relief.bump(sign * 0.42, 0.12, 0.14, 0.10, bones.cheekbone)
        relief.bump(sign * 0.40, 0.45, 0.14, 0.14, 0.5 * (bones.cheek - 0.93))
        relief.bump(sign * looks.eyes.apart, looks.eyes.height - 0.01, 0.15, 0.09, -looks.eyes.socket)


def _draw_skin(relief: Relief, looks: Looks, outline: Plane, noise: tuple[Plane, Plane]) -> None:
    skin, (mottle, specks) = looks.skin, noise
    face = relief.soft(outline)
    flush = (min(0.9, 1.15 * skin.tone[0]), 0.5 * skin.tone[1], 0.5 * skin.tone[2])
    for sign in (-1, 1):
        cheek = np.exp(-(((relief.x - sign * 0.40) / 0.20) ** 2) - ((relief.y - 0.28) / 0.20) ** 2)
        relief.paint((1.4 * skin.blush * cheek).clip(0, 0.5).astype(np.float32), flush)
    relief.colour *= 1 + face[..., None] * skin.mottling * mottle[..., None] * np.array([0.7, 1.0, 1.1], np.float32)
    belt = np.exp(-((relief.x / 0.55) ** 2) - ((relief.y - 0.18) / 0.28) ** 2)
    freckles = 0.8 * np.clip(specks - 1.1, 0, 1) * belt * min(1.0, 1.4 * skin.freckles) * face
    relief.paint(freckles, mix(skin.tone, (0.10, 0.04, 0.02), 0.75))
    for x, y in skin.moles:
        rows, columns = relief.window(x, y, 0.05, 0.05)
        spot = 0.017 - np.hypot(relief.x[:, columns] - x, relief.y[rows] - y)
        relief.paint(relief.soft(spot) * 0.85, mix(skin.tone, (0.03, 0.015, 0.01), 0.85), (rows, columns))
    relief.height += face * 0.0025 * skin.mottling / 0.1 * specks


def _draw_wrinkles(relief: Relief, looks: Looks, expression: Expression) -> None:
    depth, eyes, nose, mouth = looks.skin.wrinkles, looks.eyes, looks.nose, looks.mouth
    brow = eyes.height - eyes.brow_above
    for index in range(3):
        y = brow - 0.12 - 0.085 * index
        relief.groove((-0.36, y + 0.02), (0.36, y - 0.02), 0.014, -0.018 * depth - 0.008 * max(0.0, expression.brows))
    for sign in (-1, 1):
        fold = -0.022 * depth - 0.018 * max(0.0, expression.smile) - 0.006
        start, end = (sign * (nose.wings + 0.05), nose.tip), (sign * (mouth.half_width + 0.06), mouth.height + 0.03)
        relief.groove(start, end, 0.022, fold)
        relief.groove((sign * 0.05, brow + 0.06), (sign * 0.055, brow - 0.07), 0.012, -0.016 * depth)
        for tilt in (-0.05, 0.02, 0.08):
            corner = sign * (eyes.apart + eyes.length + 0.03)
            relief.groove((corner, eyes.height), (corner + sign * 0.12, eyes.height + tilt), 0.010, -0.012 * depth)
