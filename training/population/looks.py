"""From a person's latents to what their head looks like: lengths, angles and colours.

Lengths are in head units: the face is about 1.4 wide, from the top of the skull at y = -1 to the chin
near y = 1, with x to the picture's right and y down. Colours are linear RGB reflectances, 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from training.population.people import Person, Reading, SharedLatents

Colour = tuple[float, float, float]

_SKIN_PALE, _SKIN_DARK = (0.86, 0.63, 0.52), (0.15, 0.080, 0.054)
_HAIR = ((0.012, 0.010, 0.009), (0.05, 0.026, 0.014), (0.13, 0.065, 0.030), (0.42, 0.27, 0.11), (0.28, 0.075, 0.02))
_IRIS = ((0.02, 0.010, 0.005), (0.06, 0.033, 0.012), (0.05, 0.07, 0.03), (0.04, 0.08, 0.14), (0.07, 0.075, 0.08))
_FRAMES = (
    (0.01, 0.01, 0.012),
    (0.18, 0.05, 0.03),
    (0.10, 0.07, 0.03),
    (0.05, 0.08, 0.20),
    (0.01, 0.01, 0.012),
    (0.02, 0.07, 0.04),
)
_CLOTHES = ((0.05, 0.07, 0.15), (0.35, 0.05, 0.05), (0.06, 0.18, 0.10), (0.5, 0.5, 0.48), (0.03, 0.03, 0.03))


@dataclass(frozen=True)
class Bones:
    """The shape of the skull: half-widths, and where the chin ends."""

    width: float
    forehead: float
    cheek: float
    jaw: float
    chin_width: float
    chin_end: float
    depth: float
    cheekbone: float
    brow_ridge: float
    chin_ball: float
    ear: float


@dataclass(frozen=True)
class Eyes:
    """Eyes and brows; angles in radians, outwards up."""

    apart: float
    height: float
    length: float
    opening: float
    tilt: float
    socket: float
    crease: float
    bags: float
    iris: Colour
    lashes: float
    shadow: float
    brow_above: float
    brow_length: float
    brow_thickness: float
    brow_angle: float
    brow_arch: float
    brow_inset: float
    brow_strength: float


@dataclass(frozen=True)
class Nose:
    """Nose: where its tip is, how wide and how far out."""

    tip: float
    bridge_width: float
    bridge_out: float
    tip_width: float
    tip_out: float
    wings: float
    nostrils: float
    hump: float


@dataclass(frozen=True)
class Mouth:
    """Lips."""

    height: float
    half_width: float
    upper: float
    lower: float
    redness: float
    corners: float
    bow: float


@dataclass(frozen=True)
class Skin:
    """Complexion and what time did to it."""

    tone: Colour
    blush: float
    mottling: float
    freckles: float
    moles: tuple[tuple[float, float], ...]
    wrinkles: float
    gloss: float


@dataclass(frozen=True)
class Hair:
    """Hair, beard and glasses. ``beard`` is none, stubble, moustache, goatee or full;
    ``glasses`` none, round, square or wide, their lenses as dark as ``tint``, 0 to 1."""

    colour: Colour
    brows: Colour
    whiskers: Colour
    line: float
    peak: float
    temples: float
    fringe: float
    parting: float
    thickness: float
    length: float
    curl: float
    beard: str
    glasses: str
    frame: Colour
    frame_thickness: float
    tint: float
    clothes: Colour


@dataclass(frozen=True)
class Looks:
    """All of a head."""

    bones: Bones
    eyes: Eyes
    nose: Nose
    mouth: Mouth
    skin: Skin
    hair: Hair


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; ``share`` of the second, 0 to 1."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


@lru_cache(maxsize=512)
def looks_of(person: Person) -> Looks:
    """What a person looks like; the same for equal people."""
    reading, shared = Reading(person.face), person.shared.shown()
    # The order is part of the meaning of the latents: see Reading.
    bones = _bones(reading, shared)
    eyes = _eyes(reading, shared)
    nose = _nose(reading, shared)
    mouth = _mouth(reading, shared, bones, nose)
    skin = _skin(reading, shared)
    hair = _hair(reading, shared, skin)
    return Looks(bones, eyes, nose, mouth, skin, hair)


def _bones(reading: Reading, shared: SharedLatents) -> Bones:
    male = 0.5 + 0.5 * shared.sex
    return Bones(
        width=reading.normal(0.70 + 0.055 * shared.weight - 0.015 * shared.size, 0.012),
        forehead=reading.normal(0.95, 0.05),
        cheek=reading.normal(0.93 + 0.070 * shared.weight, 0.016),
        jaw=min(0.92, max(0.64, reading.normal(0.70 + 0.10 * male + 0.05 * shared.weight, 0.018))),
        chin_width=max(0.36, reading.normal(0.41 + 0.09 * male + 0.03 * shared.weight, 0.025)),
        chin_end=reading.normal(0.97 + 0.04 * male + 0.090 * shared.size, 0.012),
        depth=reading.normal(0.64, 0.05),
        cheekbone=reading.normal(0.05 - 0.025 * shared.weight, 0.018),
        brow_ridge=reading.normal(0.02 + 0.04 * male, 0.015),
        chin_ball=reading.normal(0.04 + 0.02 * male, 0.025),
        ear=reading.normal(1.0 + 0.15 * shared.size, 0.12),
    )


def _eyes(reading: Reading, shared: SharedLatents) -> Eyes:
    male = 0.5 + 0.5 * shared.sex
    return Eyes(
        apart=reading.normal(0.297 - 0.014 * shared.size, 0.009),
        height=reading.normal(-0.10, 0.026),
        length=reading.normal(0.145 - 0.011 * shared.age, 0.007),
        opening=max(0.040, reading.normal(0.070 - 0.010 * male - 0.006 * shared.age + 0.020 * shared.energy, 0.005)),
        tilt=reading.normal(0.05, 0.10),
        socket=reading.normal(0.08, 0.035),
        crease=reading.uniform(0.0, 1.0),
        bags=max(0.0, reading.normal(0.020 + 0.028 * shared.age, 0.008)),
        iris=reading.choice(_IRIS),
        lashes=reading.uniform(0.2, 0.5) + 0.6 * (1 - male),
        shadow=min(0.85, max(0.25, reading.normal(0.58, 0.14))),
        brow_above=reading.normal(0.170 - 0.030 * male, 0.014),
        brow_length=reading.normal(0.20, 0.022),
        brow_thickness=max(0.012, reading.normal(0.026 + 0.014 * male + 0.018 * shared.energy, 0.004)),
        brow_angle=reading.normal(0.02 + 0.13 * shared.energy, 0.06),
        brow_arch=reading.normal(0.05 - 0.02 * male + 0.015 * shared.energy, 0.012),
        brow_inset=reading.normal(0.0, 0.02),
        brow_strength=min(1.0, max(0.35, reading.normal(0.75 + 0.18 * shared.energy, 0.1))),
    )


def _nose(reading: Reading, shared: SharedLatents) -> Nose:
    male = 0.5 + 0.5 * shared.sex
    return Nose(
        tip=reading.normal(0.27 + 0.042 * shared.size, 0.010),
        bridge_width=reading.normal(0.075, 0.016),
        bridge_out=reading.normal(0.08, 0.03),
        tip_width=reading.normal(0.095 + 0.015 * male + 0.012 * shared.size, 0.014),
        tip_out=reading.normal(0.17 + 0.025 * male, 0.035),
        wings=reading.normal(0.125 + 0.02 * male + 0.012 * shared.weight, 0.018),
        nostrils=reading.uniform(0.3, 1.0),
        hump=reading.normal(0.0, 0.025),
    )


def _mouth(reading: Reading, shared: SharedLatents, bones: Bones, nose: Nose) -> Mouth:
    middle = nose.tip + 0.42 * (bones.chin_end - nose.tip)
    return Mouth(
        height=reading.normal(middle + 0.01, 0.022),
        half_width=reading.normal(0.25 + 0.032 * shared.size, 0.013),
        upper=max(0.012, reading.normal(0.046 - 0.013 * shared.age, 0.009)),
        lower=max(0.020, reading.normal(0.066 - 0.015 * shared.age, 0.011)),
        redness=min(1.0, max(0.0, reading.normal(0.45 - 0.30 * shared.sex + 0.15 * shared.warmth, 0.12))),
        corners=reading.normal(0.014 * shared.energy, 0.018),
        bow=reading.uniform(0.0, 1.0),
    )


def _skin(reading: Reading, shared: SharedLatents) -> Skin:
    darkness = reading.uniform() ** 1.1
    tone = mix(_SKIN_PALE, _SKIN_DARK, 1 - (1 - darkness) ** 1.25)
    yellow = reading.normal(1.0, 0.05)
    return Skin(
        tone=(tone[0], tone[1] * (1 - 0.09 * shared.warmth), tone[2] * yellow * (1 - 0.11 * shared.warmth)),
        blush=max(0.0, reading.normal(0.22 + 0.16 * shared.warmth, 0.04)),
        mottling=max(0.01, reading.uniform(0.02, 0.08) + 0.05 * shared.age),
        freckles=max(0.0, reading.uniform(-1.5, 0.7)),
        moles=tuple((reading.uniform(-0.5, 0.5), reading.uniform(-0.6, 0.8)) for _ in range(2)),
        wrinkles=max(0.0, 0.80 + 0.75 * shared.age + reading.normal(0.0, 0.12)),
        gloss=reading.uniform(0.02, 0.10),
    )


def _hair(reading: Reading, shared: SharedLatents, skin: Skin) -> Hair:
    male, old = shared.sex > 0, max(0.0, shared.age)
    dark_skin = skin.tone[0] < 0.3
    colour = reading.choice(_HAIR[:2] if dark_skin else _HAIR)
    grey = 1 / (1 + math.exp(-2.2 * (shared.age - 0.5) - reading.normal(0.0, 0.6)))
    bald = reading.chance(0.12 + 0.2 * old) and male
    length = reading.uniform(0.0, 0.30) if male else reading.uniform(0.45, 1.0)
    has_fringe, fringe = reading.chance(0.15 if male else 0.4), reading.uniform(0.0, 0.18)
    thickness = min(0.30, max(0.04, reading.normal(0.15 + 0.050 * shared.energy, 0.025)))
    beards = ("none", "stubble", "stubble", "stubble", "moustache", "goatee", "full")
    beard = reading.choice(beards)
    glasses = reading.choice(("none", "none", "none", "none", "none", "none", "round", "square", "wide"))
    return Hair(
        colour=mix(colour, (0.38, 0.38, 0.39), 0.9 * grey),
        brows=mix(mix(colour, (0.2, 0.2, 0.2), 0.8 * grey), mix(skin.tone, (0.01, 0.006, 0.005), 0.85), 0.45),
        whiskers=mix(colour, (0.2, 0.2, 0.2), 0.4 * grey),
        line=reading.normal(-0.65 - (0.07 if male else 0.03) * shared.age, 0.04) - (0.6 if bald else 0.0),
        peak=reading.normal(0.02, 0.04),
        temples=reading.uniform(0.0, 0.25 if male else 0.1),
        fringe=fringe if has_fringe and not bald else 0.0,
        parting=reading.uniform(-0.6, 0.6),
        thickness=0.015 if bald else thickness,
        length=0.0 if bald else length,
        curl=reading.uniform(),
        beard=beard if male else "none",
        glasses=glasses,
        frame=reading.choice(_FRAMES),
        frame_thickness=reading.uniform(0.008, 0.030),
        tint=max(0.06, reading.uniform(-0.4, 0.35)),
        clothes=reading.choice(_CLOTHES),
    )
