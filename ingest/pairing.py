"""Which of the visible faces speaks during a turn, or that the speaker is off screen: mouths against sound.

Two things tell: a mouth that moves more than the head around it, and that it moves when the sound is loud and
rests when it is not. A small logistic model weighs them; its constants were set on invented films and on real
talking clips, also with the sound of other clips laid under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.voice import SAMPLE_RATE
from ingest.mouths import MouthMotion
from ingest.track import FaceTrack, Span, Speaking, SpeechTurn

LOUDNESS_RATE = 100
"""Values of :func:`loudness` per second."""


@dataclass(frozen=True)
class PairingSettings:
    """How faces are paired with speech.

    A visible face's score is ``motion * level + together * agreement + speaks`` plus the logarithm of the share of
    the turn in which it is seen; the scores of all faces, and 0 for nobody of them, give probabilities as in a
    multinomial logistic regression.

    Args:
        fps: pictures a second in which mouths are watched, rounded up to a multiple of the rate of looks for faces.
        context: seconds before and after a turn in which mouth and sound are compared too.
        largest_lag: seconds that sound and mouth may be apart.
        motion: weight of the level, the logarithm of the mouth's mean motion.
        largest_level: above it more motion says nothing more.
        together: weight of the agreement, the correlation of mouth motion and loudness (both logarithms) times the
            root of the seconds compared.
        speaks: the constant.
        unjudged: score of a face whose mouth was not watched long enough.
        least_share: a face seen for less than this share of a turn does not count as visible.
    """

    fps: float = 25.0
    context: float = 1.0
    largest_lag: float = 0.12
    motion: float = 2.5
    largest_level: float = 1.5
    together: float = 2.5
    speaks: float = -4.5
    unjudged: float = 0.0
    least_share: float = 0.1

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"pictures per second must be above 0, got {self.fps}")
        if self.context < 0 or self.largest_lag < 0 or not 0 <= self.least_share < 1:
            raise ValueError(f"context and lag must be 0 or more and the least share below 1, got {self}")


_LOUDNESS_WINDOW = 0.08  # seconds that one value of loudness looks at
_LEAST_LOUDNESS = 0.02  # of the turn's own: quieter is silence
_MOTION_UNIT = 40.0  # brings a mouth's motion, a share of the face's contrast, near 1
_LEAST_MOTION = 0.15  # in that unit; less is noise
_HEAD_SHARE = 0.5  # how much of the head's motion is taken off the mouth's
_SMOOTHING = 0.12  # seconds
_LAG_STEP = 0.04  # seconds
_LEAST_STEPS = 5  # fewer moments of a mouth are no judgement
_MOST_SECONDS = 10.0  # of agreement that count: neighbouring moments are not independent evidence


def loudness(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square of a sound around each 1 / LOUDNESS_RATE seconds.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.

    Returns:
        (values,) float32, the first around second 0.
    """
    step = SAMPLE_RATE // LOUDNESS_RATE
    half = round(_LOUDNESS_WINDOW * LOUDNESS_RATE / 2)  # blocks of one step
    whole = len(waveform) // step
    # Sums of short blocks, not one running sum: over a long film it would lose the quiet moments.
    blocks = waveform[: whole * step].reshape(whole, step)
    energy = np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64)  # without a copy of a sound of gigabytes
    padded = np.concatenate([np.zeros(half), energy, np.zeros(half)])
    sums = np.lib.stride_tricks.sliding_window_view(padded, 2 * half).sum(axis=1)  # (whole + 1,)
    values: NDArray[np.float32] = np.sqrt(sums / (2 * half * step)).astype(np.float32)
    return values


def judge_speaking(
    turns: Sequence[SpeechTurn],
    sound: NDArray[np.float32],
    faces: Sequence[FaceTrack],
    motions: Sequence[MouthMotion],
    settings: PairingSettings | None = None,
) -> tuple[Speaking, ...]:
    """Judge for every turn which face speaks.

    Args:
        turns: in order of time.
        sound: what :func:`loudness` says of the whole sound.
        faces: the film's face tracks.
        motions: how their mouths moved, one per face.
        settings: default :class:`PairingSettings`.

    Returns:
        One judgement per turn.
    """
    if len(faces) != len(motions):
        raise ValueError(f"every face needs its mouth's motion: {len(faces)} faces, {len(motions)} motions")
    settings = settings or PairingSettings()
    spans = [turn.span for turn in turns]
    judged = []
    for place, turn in enumerate(turns):
        around = _surroundings(place, spans, settings.context)
        scores = {
            track: _score(turn.span, around, sound, face, motion, settings)
            for track, (face, motion) in enumerate(zip(faces, motions, strict=True))
        }
        judged.append(_decided({track: score for track, score in scores.items() if score is not None}))
    return tuple(judged)


def _surroundings(place: int, turns: Sequence[Span], context: float) -> Span:
    """A turn and what lies around it, up to the neighbouring turns: there somebody else may speak."""
    span = turns[place]
    start, end = max(0.0, span.start - context), span.end + context
    if place:
        start = min(span.start, max(start, turns[place - 1].end))
    if place + 1 < len(turns):
        end = max(span.end, min(end, turns[place + 1].start))
    return Span(start, end)


def _decided(scores: dict[int, float]) -> Speaking:
    """Scores of the visible faces as probabilities, the score of nobody of them being 0."""
    if not scores:
        return Speaking(None, 0.0, 1.0)
    best = max(scores, key=lambda track: (scores[track], -track))
    top = max(0.0, scores[best])
    weights = {track: float(np.exp(score - top)) for track, score in scores.items()}
    nobody = float(np.exp(-top))
    total = nobody + sum(weights.values())
    return Speaking(best, weights[best] / total, nobody / total)


def _score(
    span: Span,
    around: Span,
    sound: NDArray[np.float32],
    face: FaceTrack,
    motion: MouthMotion,
    settings: PairingSettings,
) -> float | None:
    """How much speaks for one face during a turn; None if it is not visible."""
    seen = sum(span.overlap(stretch) for stretch in face.seen)
    share = min(1.0, seen / span.duration) if span.duration > 0 else 0.0
    if share <= settings.least_share:
        return None
    first, last = np.searchsorted(motion.times, [span.start, span.end])
    if last - first < _LEAST_STEPS:
        return settings.unjudged + float(np.log(share))
    mouth = _MOTION_UNIT * motion.mouth
    level = min(settings.largest_level, float(np.log(mouth[first:last].mean() + _LEAST_MOTION)))
    early, late = np.searchsorted(motion.times, [around.start, around.end])
    residue = np.maximum(mouth - _HEAD_SHARE * _MOTION_UNIT * motion.head, 0.0)[early:late]
    agreement = _agreement(motion.times[early:late], np.log(residue + _LEAST_MOTION), sound, settings.largest_lag)
    return settings.motion * level + settings.together * agreement + settings.speaks + float(np.log(share))


def _agreement(
    times: NDArray[np.float64], mouth: NDArray[np.float64], sound: NDArray[np.float32], largest_lag: float
) -> float:
    """Best correlation of mouth and loudness over small lags, times the root of the seconds compared.

    Args:
        times: (n,) seconds, rising.
        mouth: (n,) logarithm of motion.
        sound: loudness from second 0 on.
        largest_lag: seconds.
    """
    step = float(np.median(np.diff(times)))
    width = max(1, round(_SMOOTHING / step))
    clock = np.arange(len(sound)) / LOUDNESS_RATE
    first, last = np.searchsorted(clock, [times[0] - 1.0, times[-1] + 1.0])
    near, moments = sound[first:last], clock[first:last]
    if not near.size:
        return 0.0
    floor = _LEAST_LOUDNESS * float(np.sqrt(np.mean(np.square(near, dtype=np.float64)))) + 1e-5
    lags = np.arange(-round(largest_lag / _LAG_STEP), round(largest_lag / _LAG_STEP) + 1) * _LAG_STEP
    smooth = _smoothed(mouth, width)
    best = max(
        _correlation(smooth, _smoothed(np.log(np.interp(times + lag, moments, near) + floor), width)) for lag in lags
    )
    return best * float(np.sqrt(min(len(times) * step, _MOST_SECONDS)))


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Running mean over ``width`` values, over fewer at the ends."""
    window = np.ones(min(width, len(values)))
    return np.asarray(np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same"))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's, 0 where one does not vary."""
    one, other = one - one.mean(), other - other.mean()
    length = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / length if length > 1e-9 else 0.0
