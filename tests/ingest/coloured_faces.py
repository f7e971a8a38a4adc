"""Films of coloured squares that stand for faces: they survive a codec, and who is who can be read from them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from encoders.face import DetectedFace
from encoders.space import Embedding
from encoders.voice import SAMPLE_RATE

SIDE = 48
RATE = 25
# where each person is seen, seconds; the second one leaves and returns
SEEN = {"red": [(0.0, 8.0)], "blue": [(1.5, 3.2), (5.0, 6.5)]}
CUTS = (4.0, 4.44)


def scene(number):
    """(144, 240, 3) uint8, the picture of that number: one or two people before a background that is cut twice."""
    time = number / RATE
    random = np.random.default_rng(number // 3)
    shade = (20, 120, 20)[sum(time >= cut for cut in CUTS)]
    picture = np.full((144, 240, 3), shade, np.uint8) + random.integers(0, 30, (144, 240, 1), dtype=np.uint8)
    place = {"red": (20 + 4 * time, 40), "blue": (150, 60)}
    for person, spans in SEEN.items():
        if any(start <= time < end for start, end in spans):
            left, top = (round(value) for value in place[person])
            face = picture[top : top + SIDE, left : left + SIDE]
            face[:] = 0
            face[:, :, 0 if person == "red" else 2] = 200 + random.integers(0, 40, face.shape[:2])
    return picture


class ColourDetector:
    """Finds the people of :func:`scene`; how sure it is depends on every pixel."""

    def detect(self, picture, *, smallest=30):
        faces = []
        for channel, other in ((0, 2), (2, 0)):
            full = picture[:, :, channel].astype(int) - picture[:, :, other] > 100
            rows, columns = np.flatnonzero(full.sum(axis=1) > 8), np.flatnonzero(full.sum(axis=0) > 8)
            if rows.size and columns.size:
                left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                eyes = np.float32([[38, 16], [30, 16], [8, 16], [16, 16], [24, 28]]) + np.float32([left, top])
                box = (float(left), float(top), float(right), float(bottom))
                faces.append(DetectedFace(box, 1 + float(picture.mean()) / 255, eyes))
        return faces


def describe_colours(crops):
    """A direction per person."""
    vectors = []
    for crop in crops:
        x, y = crop.landmarks[4].round().astype(int)
        vectors.append(np.eye(3, dtype=np.float32)[int(crop.pixels[y, x].argmax())])
    return vectors


def speech(seconds=8.0):
    """(samples,) float32: loud but for a pause after 5 s."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    loud = np.where((time > 5.0) & (time < 6.2), 0.0, 0.2 + 0.1 * np.sin(time * 20))
    return (loud * np.sin(time * 3000)).astype(np.float32)


def write_coloured(path, codec="libx264", options=None, seconds=8.0, first=0.0):
    """Write the film with a codec of choice; the container follows the extension. ``first``: second of its clock."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 240, 144, "yuv420p"
        for number in range(round(seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(scene(number), format="rgb24")
            frame.pts, frame.time_base = number + round(first * RATE), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def told(found):
    """All of an extraction, to be compared."""
    shots = [
        [(one.time, one.box, one.quality, one.pixels.tobytes(), one.landmarks.tobytes()) for one in face.shots]
        for face in found.faces
    ]
    faces = [(face.index, face.span, face.seen, face.area) for face in found.faces]
    turns = [(turn.span, turn.speaker, turn.overlaps, turn.waveform.tobytes()) for turn in found.turns]
    return found.media, found.kind, found.duration, faces, shots, turns, found.speaking, found.warnings


class Colours:
    """In the place of an encoder: directions that are read from the pixels."""

    def __init__(self, space):
        self.space = space

    def encode(self, modality, samples):
        return [Embedding.of(self.space, modality, vector) for vector in describe_colours(samples)]


class LoudnessDetector:
    """What is loud is speech."""

    frame_seconds = 0.01

    def probabilities(self, waveform):
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        return (np.abs(frames).mean(axis=1) > 0.01).astype(np.float32)
