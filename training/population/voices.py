"""The voice of an invented person, saying something.

A synthesiser speaks with the person's own formants, pitch and accent; then comes what it cannot do:
the colour of the throat, breath, and the small unsteadiness of a living voice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.population.people import Person, Reading
from training.population.synthesiser import synthesise

SAMPLE_RATE = 16_000

SENTENCES = (
    "The old harbour was quiet when we came back late in the evening.",
    "She asked whether the train would still stop at the village.",
    "Nobody remembered who had painted the door such a bright green.",
    "If the rain holds off, we could walk along the river tomorrow.",
    "My brother keeps his letters in a wooden box under the stairs.",
    "They opened the window and listened to the market below.",
    "A good cup of coffee is worth the climb to the upper town.",
    "The museum closes early, but the garden stays open all night.",
    "We measured the table twice and it was still too long.",
    "I would rather wait here than drive through that fog again.",
    "The children built a bridge from boxes and a piece of rope.",
    "He had forgotten the name of the song, but not the tune.",
    "Please leave the keys with the woman at the front desk.",
    "Our neighbours grow tomatoes, beans and far too many pumpkins.",
    "It took three winters to repair the roof of the chapel.",
    "The doctor said that a short journey would do him good.",
    "Every morning a grey cat sits on the wall beside the bakery.",
    "You could see the lights of the ferry from the top of the hill.",
    "The teacher wrote six numbers on the board and left the room.",
    "There is a faster road, but this one has the better view.",
    "When the music stopped, everybody looked towards the stage.",
    "The water was so clear that we counted the stones below.",
    "I have never understood why the clock runs backwards.",
    "Bring a warm coat, because the evenings are cold up there.",
)
_ACCENTS = ("en-us", "en-gb", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us-nyc")
_FORMANTS = 6
_BANDS = np.array([80, 200, 400, 800, 1400, 2200, 3200, 4500, 6000, 8000], np.float64)
_FULLNESS_DB = np.array([4.0, 4.0, 3.0, 0.5, -2.0, -3.0, -2.0, 0.0, 1.0, 1.0])
_WARMTH_DB = np.array([0.0, 0.5, 1.0, 2.0, 2.5, 1.5, -1.0, -3.0, -4.5, -5.0])


@dataclass(frozen=True)
class Voice:
    """What makes a person's voice theirs.

    Args:
        accent: eSpeak NG's name of the language variant.
        pitch: mean fundamental frequency, Hz.
        liveliness: spread of the pitch, as a share of it.
        rate: words per minute.
        tract: formant frequencies relative to an average man's; a shorter tract is higher.
        formants: per formant, factors of frequency, height and width.
        voicing: strength of the voiced sounds in per cent.
        consonants: strength of the unvoiced sounds in per cent.
        colour_db: gain at each of the ten bands from 80 Hz to 8 kHz.
        breath: share of breath noise that follows the voice.
        jitter: slow unsteadiness of pitch, as a share of it.
        echo: strength of the nearest reflection.
        echo_seconds: its delay.
    """

    accent: str
    pitch: float
    liveliness: float
    rate: float
    tract: float
    formants: tuple[tuple[float, float, float], ...]
    voicing: float
    consonants: float
    colour_db: tuple[float, ...]
    breath: float
    jitter: float
    echo: float
    echo_seconds: float


@dataclass(frozen=True)
class Delivery:
    """How one utterance is said and recorded.

    Args:
        text: what is said.
        pitch: factor of the person's pitch, near 1.
        rate: factor of the person's rate, near 1.
        level_dbfs: root-mean-square level of the speech.
        noise_dbfs: level of the background noise; -100 or less for none.
        seed: starts breath, jitter and background noise.
    """

    text: str
    pitch: float = 1.0
    rate: float = 1.0
    level_dbfs: float = -22.0
    noise_dbfs: float = -100.0
    seed: int = 0


def draw_delivery(random: np.random.Generator, sentences: int = 1) -> Delivery:
    """Draw an everyday delivery of so many different sentences (1 to 24)."""
    chosen = random.choice(len(SENTENCES), sentences, replace=False)
    return Delivery(
        text=" ".join(SENTENCES[int(index)] for index in chosen),
        pitch=float(np.exp(random.normal(0, 0.03))),
        rate=float(np.exp(random.normal(0, 0.04))),
        level_dbfs=float(random.uniform(-26, -19)),
        noise_dbfs=float(random.uniform(-66, -50)),
        seed=int(random.integers(2**31)),
    )


@lru_cache(maxsize=512)
def voice_of(person: Person) -> Voice:
    """What a person sounds like; the same for equal people."""
    reading, shared = Reading(person.voice), person.shared.shown()
    male = 0.5 + 0.5 * shared.sex
    # The order is part of the meaning of the latents: see Reading.
    pitch = (206 - 98 * male) * np.exp(reading.normal(-0.08 * shared.size - 0.03 * shared.age, 0.05))
    tract = (1.14 - 0.15 * male) * np.exp(reading.normal(-0.085 * shared.size, 0.016))
    tilt = reading.normal(-1.0, 1.2)
    # Fullness lies in the chest's bands, warmth in what the treble loses.
    shapes = shared.weight * _FULLNESS_DB + shared.warmth * _WARMTH_DB
    colour = [reading.normal(shape, 1.7) + tilt * (place - 4.5) / 4.5 for place, shape in enumerate(shapes)]
    return Voice(
        accent=reading.choice(_ACCENTS),
        pitch=float(pitch),
        liveliness=max(0.10, reading.normal(0.42 + 0.17 * shared.energy, 0.04)),
        rate=reading.normal(162 + 22 * shared.energy - 10 * shared.age, 6),
        tract=float(tract),
        formants=tuple((reading.normal(1.0, 0.025), max(0.6, reading.normal(1.0, 0.2)), 1.0) for _ in range(_FORMANTS)),
        voicing=reading.normal(100 + 10 * shared.weight, 8),
        consonants=reading.normal(100 + 20 * shared.energy, 8),
        colour_db=tuple(colour),
        breath=0.06 * float(np.exp(reading.normal(0.75 * shared.age, 0.25))),
        jitter=0.005 * float(np.exp(0.6 * shared.age)) + reading.uniform(0.0, 0.003),
        echo=reading.uniform(0.0, 0.25),
        echo_seconds=reading.uniform(0.004, 0.03),
    )


def speak(person: Person, delivery: Delivery) -> NDArray[np.float32]:
    """Say something.

    Returns:
        (n,) float32 mono at 16 kHz in [-1, 1]; it begins and ends with the speech, give or take 0.1 s.

    Raises:
        SynthesiserError: if the synthesiser refuses the text.
    """
    voice, random = voice_of(person), np.random.default_rng(delivery.seed)
    rate = round(min(300.0, max(90.0, voice.rate * delivery.rate)))
    raw, raw_rate = synthesise(delivery.text, _definition(voice, delivery.pitch), rate)
    sound = _colour(_trim(raw, raw_rate), raw_rate, voice, random)
    sound = sound * _gain(sound, delivery.level_dbfs)
    if delivery.noise_dbfs > -100:
        sound = sound + background_noise(len(sound), delivery.noise_dbfs, random)
    return np.clip(sound, -1, 1).astype(np.float32)


def background_noise(count: int, level_dbfs: float, random: np.random.Generator) -> NDArray[np.float32]:
    """(count,) float32 of a room's hum and hiss at 16 kHz: noise that falls with frequency."""
    size = max(4096, count + -count % 4096)  # a transform of a prime length is slow
    spectrum = np.fft.rfft(random.standard_normal(size, dtype=np.float32))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 60.0)).astype(np.float32), size)[:count]
    level = float(np.sqrt(np.mean(noise**2))) if count else 1.0
    return (noise * (10 ** (level_dbfs / 20) / max(level, 1e-9))).astype(np.float32)


def _definition(voice: Voice, pitch_factor: float) -> str:
    """The voice as eSpeak NG's voice files say it."""
    low = voice.pitch * pitch_factor * (1 - 0.5 * voice.liveliness)
    high = voice.pitch * pitch_factor * (1 + 0.7 * voice.liveliness)
    lines = ["name invented", f"language {voice.accent}", f"pitch {round(low)} {round(high)}"]
    # Both would run on inside the library, so that a text's sound depended on the texts before it.
    lines += ["flutter 0", "roughness 0"]
    for number, (frequency, height, width) in enumerate(voice.formants):
        percent = (round(100 * voice.tract * frequency), round(100 * height), round(100 * width))
        lines.append(f"formant {number} {percent[0]} {percent[1]} {percent[2]}")
    lines += [f"formant {number} {round(100 * voice.tract)} 100 100" for number in range(_FORMANTS, 9)]
    lines += [f"voicing {round(voice.voicing)}", f"consonants {round(voice.consonants)} {round(voice.consonants)}"]
    return "\n".join(lines) + "\n"


def _trim(sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Cut the silence before and after."""
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    margin = rate // 25
    return sound[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else sound


def _colour(sound: NDArray[np.float32], rate: int, voice: Voice, random: np.random.Generator) -> NDArray[np.float32]:
    """Filter, breathe, sway and echo, and come out at 16 kHz."""
    oversampling, count = 4, len(sound)
    sound = np.pad(sound, (0, -count % 4096))  # a transform of a prime length is slow
    frequencies = np.fft.rfftfreq(len(sound), 1 / rate)
    half = rate // 100  # of a window of 20 ms
    energy = np.cumsum(np.pad(sound.astype(np.float64) ** 2, (half + 1, half)))
    envelope = np.sqrt(np.maximum(energy[2 * half :] - energy[: -2 * half], 0) / (2 * half))[1:].astype(np.float32)
    breathed = sound + voice.breath * envelope * random.standard_normal(len(sound)).astype(np.float32)
    gain_db = np.interp(np.log(np.maximum(frequencies, 1)), np.log(_BANDS), voice.colour_db)
    # Nothing above 7.8 kHz survives at 16 kHz: cut it before it folds back.
    response = 10 ** (gain_db / 20) * np.clip((7800 - frequencies) / 400, 0, 1)
    response = response * (1 + voice.echo * np.exp(-2j * np.pi * frequencies * voice.echo_seconds))
    spectrum = np.fft.rfft(breathed.astype(np.float32)) * response.astype(np.complex64)
    fine = np.fft.irfft(spectrum, oversampling * len(sound)) * oversampling
    length = int(count * SAMPLE_RATE / rate)
    knots = max(4, int(6 * length / SAMPLE_RATE))
    sway = np.interp(np.linspace(0, knots - 1, length), np.arange(knots), random.standard_normal(knots))
    seconds = np.cumsum((1 + voice.jitter * sway) / SAMPLE_RATE)
    return np.interp(seconds * rate * oversampling, np.arange(len(fine)), fine).astype(np.float32)


def _gain(sound: NDArray[np.float32], level_dbfs: float) -> float:
    level, peak = float(np.sqrt(np.mean(sound**2))), float(np.abs(sound).max())
    return min(10 ** (level_dbfs / 20) / max(level, 1e-6), 0.97 / max(peak, 1e-6))
