"""What a head wears: hair behind and before, a beard, glasses."""

from __future__ import annotations

import numpy as np

from training.population.features import Expression
from training.population.looks import Bones, Colour, Hair, Looks, mix
from training.population.relief import Plane, Relief, head_outline, head_widths


def draw_back_hair(relief: Relief, hair: Hair, bones: Bones, tuft: Plane) -> None:
    """What falls behind the head; ``tuft`` is the hair's texture."""
    if hair.length <= 0.02:
        return
    thickness = 0.4 * hair.thickness + 0.12 * hair.length
    bottom = -0.2 + 1.7 * hair.length
    half = np.where(relief.y < -0.1, head_widths(bones, 0, relief.y, thickness), bones.width + thickness)
    mask = relief.soft(half + 0.03 * tuft * (0.3 + hair.curl) - np.abs(relief.x), 2.0)
    mask = mask * relief.soft(bottom + 0.05 * tuft - relief.y, 4.0)
    _comb(relief, mask, hair.colour, tuft, 0.45)
    relief.height += mask * (-0.05 - 0.15 * np.abs(relief.x) + 0.02 * tuft - relief.height)
    relief.cover = np.maximum(relief.cover, mask)


def draw_hair(relief: Relief, hair: Hair, bones: Bones, tuft: Plane) -> None:
    """What lies on the skull, down to the hairline."""
    x, y = relief.x, relief.y
    line = hair.line + hair.peak * np.cos(np.pi * np.clip(x / 0.25, -1, 1)) + 0.55 * (x / bones.width) ** 4
    line = line - hair.temples * np.exp(-(((np.abs(x) - 0.38) / 0.13) ** 2))
    sweep = np.clip(1 - np.abs(x - 0.35 * hair.parting) / 0.75, 0, 1) ** 0.5
    line = line + hair.fringe * sweep * (1 + 0.25 * np.sign(hair.parting) * x)
    side_burn = np.abs(x) > 0.86 * bones.width
    line = np.where(side_burn & (hair.length > 0.1), np.maximum(line, -0.2 + 1.4 * hair.length), line)
    over = head_widths(bones, 0, y, hair.thickness) - np.abs(x) + 0.02 * tuft * (0.2 + hair.curl)
    mask = relief.soft(over, 2.5) * relief.soft(line + 0.022 * tuft - y, 4.0)
    mask = mask * (0.85 + 0.15 * np.clip(tuft, -1, 1)) if hair.thickness < 0.06 else mask
    if hair.line < -0.95:
        mask = mask * 0.35
    _comb(relief, mask, hair.colour, tuft, 0.9)
    crown = np.sqrt(np.clip(over / (bones.width + hair.thickness), 0, 1))
    relief.height += mask * ((0.75 * crown - 0.1 + 0.10 * hair.thickness + 0.018 * tuft) - relief.height) * 0.8
    relief.gloss = np.maximum(relief.gloss * (1 - mask), 0.05 * mask).astype(np.float32)
    relief.cover = np.maximum(relief.cover, mask).astype(np.float32)


def draw_beard(relief: Relief, looks: Looks, expression: Expression, tuft: Plane, specks: Plane) -> None:
    """Stubble, moustache, goatee or full beard, leaving the lips free."""
    hair, mouth, bones = looks.hair, looks.mouth, looks.bones
    if hair.beard == "none":
        return
    x, y, gap = np.abs(relief.x), relief.y, 0.17 * expression.mouth
    half_height = (mouth.upper + mouth.lower + gap) / 2 + 0.02
    middle = mouth.height + (mouth.lower - mouth.upper + gap) / 2
    lips = relief.soft((1 - np.hypot(x / (mouth.half_width + 0.03), (y - middle) / half_height)) * half_height, 4.0)
    under_nose = relief.soft(y - looks.nose.tip - 0.085 - 0.25 * x**2 - 0.01 * tuft, 5.0)
    droop = mouth.height + 0.01 + 0.4 * np.maximum(0, x - 0.6 * mouth.half_width)
    beside = relief.soft(mouth.half_width + 0.09 - x - 0.2 * (droop - y), 6.0)
    moustache = under_nose * relief.soft(droop - y, 4.0) * beside
    chin = relief.soft(y - mouth.height, 6.0) * relief.soft(mouth.half_width + 0.03 - x, 6.0)
    cheeks = relief.soft(y - 0.36 - 0.45 * np.maximum(0, 0.60 - x) - 0.02 * tuft, 8.0)
    cheeks = cheeks * np.maximum(under_nose, x > 0.2)
    partial = {"moustache": moustache, "goatee": np.maximum(moustache, chin)}
    area = partial.get(hair.beard, np.maximum(cheeks, moustache))
    inside = relief.soft(head_outline(relief, bones, 0.11 * expression.mouth) + 0.01)
    mask = area * (1 - lips) * inside
    if hair.beard == "stubble":
        relief.paint(mask * np.clip(0.38 + 0.12 * specks, 0, 1), mix(hair.brows, looks.skin.tone, 0.2))
        return
    _comb(relief, (mask * np.clip(0.9 + 0.1 * specks, 0, 1)).astype(np.float32), hair.whiskers, tuft, 0.8)
    relief.height += mask * (0.03 + 0.008 * tuft)
    relief.gloss *= 1 - mask


def draw_glasses(relief: Relief, looks: Looks) -> None:
    """Frames, a little glass, and arms to the ears."""
    hair, eyes = looks.hair, looks.eyes
    if hair.glasses == "none":
        return
    wide, high = {"round": (0.20, 0.175), "square": (0.225, 0.145)}.get(hair.glasses, (0.25, 0.20))
    power = 2.2 if hair.glasses == "round" else 5.0
    for sign in (-1, 1):
        centre = sign * (eyes.apart + 0.02)
        rows, columns = relief.window(centre, eyes.height + 0.03, 0.4, 0.3)
        across, along = np.abs(relief.x[:, columns] - centre) / wide, np.abs(relief.y[rows] - eyes.height - 0.03) / high
        radius = (across**power + along**power) ** (1 / power)
        rim = relief.soft(hair.frame_thickness - np.abs(radius - 1) * 0.5 * (wide + high), 1.5)
        relief.paint(rim, hair.frame, (rows, columns))
        glass = mix(hair.frame, (0.02, 0.02, 0.02), 0.6)
        relief.paint(relief.soft((1 - radius) * wide) * hair.tint, glass, (rows, columns))
        arm_x = sign * (eyes.apart + 0.02 + wide + 0.12)
        arm = relief.window(arm_x, eyes.height, 0.13, 0.03)
        relief.paint(relief.soft(0.018 - np.abs(relief.y[arm[0]] - eyes.height)) * relief.cover[arm], hair.frame, arm)
    gap = max(0.02, eyes.apart + 0.02 - wide)
    bridge = relief.window(0, eyes.height, gap, 0.06)
    bar = relief.soft(0.016 - np.abs(relief.y[bridge[0]] - eyes.height))
    relief.paint(bar * relief.soft(gap - np.abs(relief.x[:, bridge[1]])), hair.frame, bridge)


def _comb(relief: Relief, mask: Plane, colour: Colour, tuft: Plane, light: float) -> None:
    shade = np.clip(light * (1 + 0.38 * tuft), 0.05, 2.0)
    relief.paint(mask, shade[..., None] * np.asarray(colour, np.float32))
