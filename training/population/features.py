"""What a face has: nose, mouth, eyes and brows, under an expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.population.looks import Eyes, Looks, Mouth, Nose, Skin, mix
from training.population.relief import Plane, Relief


@dataclass(frozen=True)
class Expression:
    """What the face is doing.

    Args:
        mouth: how far the mouth is open, 0 to 1.
        smile: -1 (sad) to 1.
        eyes: how far the eyes are open, 0 to 1.2.
        brows: raised (1) or knit (-1).
        gaze: eyes turned to the picture's left (-1) or right (1).
    """

    mouth: float = 0.0
    smile: float = 0.0
    eyes: float = 1.0
    brows: float = 0.0
    gaze: float = 0.0


def draw_nose(relief: Relief, nose: Nose, skin: Skin, eye_height: float) -> None:
    """Bridge, tip, wings and nostrils; the bridge begins between eyes at ``eye_height``."""
    rows, columns = relief.window(0, (nose.tip + eye_height) / 2, 0.4, 0.5)
    x, y = relief.x[:, columns], relief.y[rows]
    along = np.clip((y - eye_height + 0.05) / (nose.tip - eye_height + 0.05), 0, 1)
    out = nose.bridge_out * np.minimum(1, 4 * along) * (1 - along) + nose.tip_out * along**1.4
    out = out + nose.hump * np.exp(-(((along - 0.45) / 0.18) ** 2))
    out = out * np.exp(-0.5 * (np.maximum(0, y - nose.tip) / 0.06) ** 2)
    wide = nose.bridge_width + (nose.tip_width - nose.bridge_width) * along**2
    relief.height[rows, columns] += out * np.exp(-0.5 * (x / wide) ** 2)
    for sign in (-1, 1):
        relief.bump(sign * nose.wings, nose.tip + 0.005, 0.048, 0.045, 0.09)
        beside = sign * (nose.wings + 0.055)
        relief.groove((beside, nose.tip - 0.06), (beside, nose.tip + 0.05), 0.02, -0.03)
        spot_x, spot_y = sign * 0.55 * nose.wings, nose.tip + 0.052
        hole_rows, hole_columns = relief.window(spot_x, spot_y, 0.1, 0.06)
        across = (relief.x[:, hole_columns] - spot_x) / (0.40 * nose.wings)
        radius = np.hypot(across, (relief.y[hole_rows] - spot_y) / 0.024)
        hole = relief.soft((1 - radius) * 0.03, 2.0) * nose.nostrils
        relief.paint(hole, mix(skin.tone, (0.01, 0.004, 0.003), 0.88), (hole_rows, hole_columns))


def draw_mouth(relief: Relief, mouth: Mouth, skin: Skin, expression: Expression) -> None:
    """Lips, closed or parted, with teeth and darkness between them."""
    half = mouth.half_width * (1 + 0.14 * expression.smile - 0.10 * expression.mouth)
    gap = 0.17 * expression.mouth
    rows, columns = relief.window(0, mouth.height + gap / 2, half + 0.1, 0.32)
    x, y = relief.x[:, columns], relief.y[rows]
    across = np.clip(np.abs(x) / half, 0, 1)
    lift = mouth.corners + 0.055 * expression.smile
    seam = mouth.height - lift * across**2
    arch = np.sqrt(1 - across**2)
    bow = 1 - 0.35 * mouth.bow * np.exp(-((x / 0.045) ** 2))
    upper_edge, lower_seam = seam - mouth.upper * (1 - across**1.7) * bow, seam + gap * arch
    lower_edge = lower_seam + mouth.lower * (1 - across**2.0)
    inside = (across < 1).astype(np.float32)
    lips = relief.soft(y - upper_edge, 2.0) * relief.soft(lower_edge - y, 2.0) * inside
    red = mix(mix(skin.tone, (0.30, 0.06, 0.06), 0.35), (0.42, 0.035, 0.05), 0.75 * mouth.redness)
    relief.paint(lips, mix(red, skin.tone, 0.15), (rows, columns))
    where = (rows, columns)
    pillow = np.exp(-(((y - (upper_edge + seam) / 2) / 0.035) ** 2))
    pillow = pillow + 1.3 * np.exp(-(((y - (lower_seam + lower_edge) / 2) / 0.04) ** 2))
    relief.height[where] += 0.045 * pillow * arch * inside
    relief.gloss[where] = np.maximum(relief.gloss[where], 0.10 * lips)
    hole = relief.soft(y - seam) * relief.soft(lower_seam - y) * inside * min(1.0, 8 * expression.mouth)
    relief.paint(hole, (0.035, 0.008, 0.008), where)
    teeth = hole * relief.soft(seam + 0.4 * gap - y, 3.0) * (across < 0.75) * 0.8
    relief.paint(teeth, (0.55, 0.52, 0.45), where)
    line = np.exp(-(((y - seam) / 0.010) ** 2)) * inside * 0.75
    relief.paint(line, mix(skin.tone, (0.05, 0.01, 0.01), 0.85), where)


def draw_eye(relief: Relief, eyes: Eyes, skin: Skin, expression: Expression, sign: int) -> None:
    """The eye on the picture's left (``sign`` -1) or right (1), with lids, lashes and shadow."""
    rows, columns = relief.window(sign * eyes.apart, eyes.height, 0.26, 0.22)
    out = sign * relief.x[:, columns] - eyes.apart
    down = relief.y[rows] - eyes.height
    u, v = out * np.cos(eyes.tilt) - down * np.sin(eyes.tilt), out * np.sin(eyes.tilt) + down * np.cos(eyes.tilt)
    across = np.clip(u / eyes.length, -1, 1)
    arch = (1 - across**2) ** 0.75
    upper, lower = -eyes.opening * expression.eyes * arch, 0.62 * eyes.opening * (0.4 + 0.6 * expression.eyes) * arch
    where, ends = (rows, columns), relief.soft(eyes.length - np.abs(u))
    ball = relief.soft(v - upper) * relief.soft(lower - v) * ends
    relief.height[where] += 0.055 * np.exp(-((u / 0.13) ** 2) - (v / 0.085) ** 2)
    shadow = np.exp(-((u / (1.15 * eyes.length)) ** 2) - ((v + 0.035) / 0.085) ** 2) * eyes.shadow
    relief.paint(shadow, mix(skin.tone, (0.02, 0.012, 0.010), 0.8), where)
    relief.paint(ball, mix((0.40, 0.37, 0.35), skin.tone, 0.5), where)
    radius = np.hypot(u - sign * 0.035 * expression.gaze, v + 0.008)
    relief.paint(ball * relief.soft(0.070 - radius), eyes.iris, where)
    relief.paint(ball * relief.soft(0.010 - np.abs(radius - 0.064)), (0.01, 0.01, 0.01), where)
    relief.paint(ball * relief.soft(0.028 - radius), (0.004, 0.004, 0.004), where)
    glint = np.hypot(sign * u + 0.02, v + 0.03)
    relief.paint(ball * relief.soft(0.014 - glint), (1.0, 1.0, 1.0), where)
    dark = mix(skin.tone, (0.01, 0.006, 0.005), 0.9)
    lash = np.exp(-(((v - upper) / (0.010 + 0.010 * eyes.lashes)) ** 2)) * ends * (0.5 + 0.5 * eyes.lashes)
    relief.paint(np.clip(lash, 0, 1).astype(np.float32), dark, where)
    rim = 0.35 * np.exp(-(((v - lower) / 0.010) ** 2)) * ends
    relief.paint(rim, dark, where)
    fold = 0.55 * eyes.crease * np.exp(-(((v - upper + 0.042) / 0.009) ** 2)) * ends
    relief.paint(fold, mix(skin.tone, (0.02, 0.01, 0.01), 0.6), where)
    inner, outer = sign * (eyes.apart - 0.11), sign * (eyes.apart + 0.13)
    relief.groove((inner, eyes.height + 0.13), (outer, eyes.height + 0.12), 0.022, -eyes.bags)


def draw_brow(relief: Relief, looks: Looks, expression: Expression, sign: int, strands: Plane) -> None:
    """The brow above the same eye; ``strands`` is the hair's texture."""
    eyes = looks.eyes
    height = eyes.height - eyes.brow_above - 0.035 * expression.brows
    centre = eyes.apart + eyes.brow_inset
    rows, columns = relief.window(sign * centre, height, 0.4, 0.28)
    u, v = sign * relief.x[:, columns] - centre, relief.y[rows] - height
    across = np.clip(u / eyes.brow_length, -1, 1)
    middle = -eyes.brow_arch * (1 - across**2) - eyes.brow_angle * u + 0.03 * min(0.0, expression.brows) * across
    half = eyes.brow_thickness * (0.75 - 0.45 * across) * (1 + 0.15 * strands[rows, columns])
    ends = relief.soft(eyes.brow_length - np.abs(u), 5.0)
    mask = relief.soft(half - np.abs(v - middle), 3.0) * ends * eyes.brow_strength
    texture = np.clip(0.85 + 0.2 * strands[rows, columns], 0.3, 1)
    relief.paint((mask * texture).astype(np.float32), looks.hair.brows, (rows, columns))
    relief.height[rows, columns] += 0.012 * mask
