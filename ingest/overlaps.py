"""Where two of a file's speakers speak at once.

A short window of one voice points where that speaker's voice does; of two voices at once, between the two, and it
is louder. The voices are learnt anew from windows of that length, because short windows of a speaker lie apart
from long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoders.voice import SAMPLE_RATE
from ingest.track import Span

DescribeVoices = Callable[[Sequence[NDArray[np.float32]]], list[NDArray[np.float32] | None]]
"""Unit vectors of sounds in order, None where a sound has none."""


@dataclass(frozen=True)
class OverlapSettings:
    """How overlapping speech is looked for. Set for precision, on dialogues mixed of real voices.

    Args:
        window: seconds that one vector describes: short, or a change of speaker would look like an overlap.
        step: seconds from one window to the next.
        reach: only speakers who are heard within so many seconds can speak at once.
        too_alike: voices with a larger cosine cannot be told apart in a mixture.
        loudness: weight of the window's loudness against that of the louder speaker (natural logarithm).
        least: an overlap's score, the lesser of two voices' weights in the window's vector plus loudness, is so
            high at least.
        shortest: shorter finds are no overlaps, seconds.
    """

    window: float = 0.8
    step: float = 0.2
    reach: float = 2.2
    too_alike: float = 0.72
    loudness: float = 0.2
    least: float = 0.33
    shortest: float = 0.4

    def __post_init__(self) -> None:
        if not (self.window > 0 and self.step > 0 and self.reach >= 0):
            raise ValueError(f"window and step must be above 0 and reach 0 or more, got {self}")


_MARGIN = 0.2  # seconds from a change of speaker within which a window says nothing of one voice
_LEAST_HEARD = 1.0  # seconds of windows without which a voice is not known
_ROUNDS = 3  # of learning the voices from the windows that are most surely theirs
_LEAST_CERTAIN = 0.05  # a lower weight of the lesser voice is one voice, however loud
_QUIETEST = 1e-4  # of full scale


def find_overlaps(
    waveform: NDArray[np.float32],
    pieces: Sequence[tuple[Span, int]],
    describe: DescribeVoices,
    settings: OverlapSettings | None = None,
) -> list[Span]:
    """Stretches in which two speakers speak at once.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.
        pieces: speech and the number of its speaker, in order of time; neighbours may touch.
        describe: gives voice vectors.
        settings: default :class:`OverlapSettings`.

    Returns:
        Spans in order of time that do not touch; none for a single speaker.
    """
    settings = settings or OverlapSettings()
    if len({speaker for _, speaker in pieces}) < 2:
        return []
    starts = _starts(pieces, settings)
    size = round(settings.window * SAMPLE_RATE)
    cuts = [waveform[(first := round(start * SAMPLE_RATE)) : first + size] for start in starts.tolist()]
    vectors = describe(cuts)
    known = [place for place, vector in enumerate(vectors) if vector is not None]
    if not known:
        return []
    stacked = np.array([vectors[place] for place in known], dtype=np.float64)  # (windows, dimension)
    levels = np.array([np.log(_loudness(cuts[place]) + _QUIETEST) for place in known])
    scores = _scores(stacked, levels, starts[known], pieces, settings)
    return _stretches(starts[known] + settings.window / 2, scores, settings)


def _starts(pieces: Sequence[tuple[Span, int]], settings: OverlapSettings) -> NDArray[np.float64]:
    """(windows,) seconds at which windows over the speech begin; pieces that touch are one stretch of it."""
    stretches: list[Span] = []
    for span, _ in pieces:
        if stretches and span.start - stretches[-1].end < settings.step:
            stretches[-1] = Span(stretches[-1].start, span.end)
        else:
            stretches.append(span)
    counts = [int((one.duration - settings.window) / settings.step + 1e-6) + 1 for one in stretches]
    starts = [
        one.start + np.arange(max(0, count)) * settings.step for one, count in zip(stretches, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0), *starts])


def _loudness(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def _scores(
    vectors: NDArray[np.float64],
    levels: NDArray[np.float64],
    starts: NDArray[np.float64],
    pieces: Sequence[tuple[Span, int]],
    settings: OverlapSettings,
) -> NDArray[np.float64]:
    """(windows,) how much speaks for two voices in each window; minus infinity where nothing can."""
    ends = starts + settings.window
    speakers = sorted({speaker for _, speaker in pieces})
    near = np.zeros((len(speakers), len(starts)), dtype=np.bool_)
    inside = np.zeros_like(near)
    for span, speaker in pieces:
        row = speakers.index(speaker)
        near[row] |= (ends > span.start - settings.reach) & (starts < span.end + settings.reach)
        inside[row] |= (starts >= span.start + _MARGIN) & (ends <= span.end - _MARGIN)
    heard = inside.sum(axis=1) * settings.step >= _LEAST_HEARD
    scores = np.full(len(starts), -np.inf)
    if heard.sum() < 2:
        return scores
    near = near[heard]
    voices, owner = _voices(vectors, inside[heard])
    usual = np.array([np.median(levels[owner == row]) if (owner == row).any() else 0.0 for row in range(len(voices))])
    for one, other in combinations(range(len(voices)), 2):
        which = np.flatnonzero(near[one] & near[other])
        if voices[one] @ voices[other] > settings.too_alike or not which.size:
            continue
        # The two weights with which the voices together come nearest to each vector (least squares).
        lesser = np.linalg.lstsq(voices[[one, other]].T, vectors[which].T, rcond=None)[0].min(axis=0)
        louder = np.clip(levels[which] - max(usual[one], usual[other]), -1.0, 1.0)
        total = np.where(lesser >= _LEAST_CERTAIN, lesser + settings.loudness * louder, -np.inf)
        scores[which] = np.maximum(scores[which], total)
    return scores


def _voices(vectors: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The voices of the speakers in short windows.

    Args:
        vectors: (windows, dimension) unit vectors.
        inside: (speakers, windows) which windows lie well within a speaker's speech; each has some.

    Returns:
        (speakers, dimension) unit vectors, and (windows,) whose voice each window is nearest to.
    """
    voices = _units(np.array([vectors[its].mean(axis=0) for its in inside]))
    for _ in range(_ROUNDS):
        likeness = vectors @ voices.T
        owner = likeness.argmax(axis=1)
        ordered = np.sort(likeness, axis=1)
        margin = ordered[:, -1] - ordered[:, -2]
        for row in range(len(voices)):
            its = owner == row
            if its.sum() >= 3:  # the half that is most surely this voice, without mixtures
                voices[row] = vectors[its & (margin >= np.median(margin[its]))].mean(axis=0)
        voices = _units(voices)
    return voices, (vectors @ voices.T).argmax(axis=1)


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _stretches(moments: NDArray[np.float64], scores: NDArray[np.float64], settings: OverlapSettings) -> list[Span]:
    """Runs of windows that score high enough, each standing for ``step`` seconds around its middle."""
    breaks = np.flatnonzero(np.diff(moments) > 1.5 * settings.step) + 1
    found: list[Span] = []
    for times, values in zip(np.split(moments, breaks), np.split(scores, breaks), strict=True):
        window = np.ones(min(3, len(values)))
        bounded = np.maximum(values, -1.0)  # a mean of neighbours needs numbers
        smooth = np.convolve(bounded, window, "same") / np.convolve(np.ones(len(values)), window, "same")
        both = (smooth >= settings.least) & np.isfinite(values)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], both, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2).tolist():
            half = settings.step / 2
            span = Span(max(0.0, float(times[first]) - half), float(times[last - 1]) + half)
            if span.duration >= settings.shortest - 1e-6:
                found.append(span)
    return found
