"""Speech of a sound cut into turns, and the turns told apart by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encoders.voice import SAMPLE_RATE, SpeechDetector
from ingest.grouping import group_alike
from ingest.overlaps import DescribeVoices, OverlapSettings, find_overlaps
from ingest.track import Span, SpeechTurn
from ingest.waveform import is_mapped, let_go


@dataclass(frozen=True)
class VoiceSettings:
    """How speech is found and told apart by speaker. Defaults are measured on real speech.

    Args:
        speech_begins: speech begins where its probability reaches this.
        speech_ends: and ends where it falls below this.
        shortest_speech: shorter finds are no speech, seconds.
        shortest_pause: a shorter pause does not end speech, seconds.
        padding: added before and after speech, seconds.
        least_loudness: root mean square below which nothing is speech, of full scale 1.
        window: seconds of speech that one voice vector describes.
        step: seconds from one such window to the next.
        same_speaker: least mean cosine of the (GE2E) vectors of one speaker's windows. Chosen on 162 clips of
            one speaker each (none is split; at 0.65 two are) and two excerpts of meetings.
        least_speaking: a speaker who speaks less in all, and less than a tenth of what is spoken, is
            taken for the nearest other one, seconds.
        longest_join: a speaker's turns closer than this are one, if nobody speaks between them, seconds.
        overlaps: how it is found where two speak at once.
    """

    speech_begins: float = 0.5
    speech_ends: float = 0.35
    shortest_speech: float = 0.3
    shortest_pause: float = 0.2
    padding: float = 0.1
    least_loudness: float = 5e-4
    window: float = 1.6
    step: float = 0.4
    same_speaker: float = 0.635
    least_speaking: float = 2.0
    longest_join: float = 0.8
    overlaps: OverlapSettings = field(default_factory=OverlapSettings)


# Windows shorter than this have vectors too uncertain to found a speaker on, seconds.
FOUNDING_SECONDS = 1.2
FOUNDING_SHARE = 0.97  # of it must be speech
# Below this a voice vector means nothing, seconds.
LEAST_WINDOW_SECONDS = 0.4
# Moments at which it is decided who speaks, seconds apart.
_GRID_SECONDS = 0.1
# Moments that are weighed at a time: an hour without a pause has many, and as many windows.
_MOMENTS = 1000
# A change of speaker for less than this is noise of the vectors, seconds.
_SHORTEST_CHANGE = 0.5


def find_speech_turns(
    waveform: NDArray[np.float32],
    detector: SpeechDetector,
    describe: DescribeVoices | None = None,
    settings: VoiceSettings | None = None,
) -> tuple[SpeechTurn, ...]:
    """Cut a sound into turns of speech, each by one speaker.

    Args:
        waveform: (samples,) float32 mono at 16 kHz, within [-1, 1], beginning at second 0.
        detector: gives the probability of speech.
        describe: gives voice vectors; without it all turns are by speaker 0.
        settings: default :class:`VoiceSettings`.

    Returns:
        Turns in order of time, speakers numbered by first turn, with the parts in which another speaker speaks
        too; none if nobody speaks.
    """
    settings = settings or VoiceSettings()
    probabilities = detector.probabilities(waveform)
    let_go(waveform)
    regions = speech_regions(probabilities, detector.frame_seconds, settings)
    regions = [span for span in regions if _loudness(_cut(waveform, span)) >= settings.least_loudness]
    regions = _padded(regions, len(waveform) / SAMPLE_RATE, settings.padding)
    pieces = _told_apart(waveform, regions, describe, settings)
    both = find_overlaps(waveform, pieces, describe, settings.overlaps) if describe else []
    let_go(waveform)
    numbers: dict[int, int] = {}
    found = _joined(pieces, settings.longest_join)
    # Copies, so that the rest can be freed; the turns of a long sound stay with it in its file.
    sounds = (_cut(waveform, span) if is_mapped(waveform) else _cut(waveform, span).copy() for span, _ in found)
    return tuple(
        SpeechTurn(span, numbers.setdefault(speaker, len(numbers)), sound, _within(span, both))
        for (span, speaker), sound in zip(found, sounds, strict=True)
    )


def speech_regions(probabilities: NDArray[np.float32], frame_seconds: float, settings: VoiceSettings) -> list[Span]:
    """Where somebody speaks, from the probability of speech per frame: a switch with two thresholds.

    Args:
        probabilities: (frames,) float32 in [0, 1].
        frame_seconds: length of a frame.
        settings: thresholds and least lengths.
    """
    runs: list[tuple[int, int]] = []
    begin: int | None = None
    for frame, probability in enumerate(probabilities.tolist()):
        if begin is None and probability >= settings.speech_begins:
            begin = frame
        elif begin is not None and probability < settings.speech_ends:
            runs.append((begin, frame))
            begin = None
    if begin is not None:
        runs.append((begin, len(probabilities)))
    bridged: list[tuple[int, int]] = []
    for first, last in runs:
        if bridged and (first - bridged[-1][1]) * frame_seconds < settings.shortest_pause:
            bridged[-1] = (bridged[-1][0], last)
        else:
            bridged.append((first, last))
    return [
        Span(first * frame_seconds, last * frame_seconds)
        for first, last in bridged
        if (last - first) * frame_seconds >= settings.shortest_speech
        and float(probabilities[first:last].mean()) >= settings.speech_begins
    ]


def _cut(waveform: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    return waveform[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)]


def _within(span: Span, others: Sequence[Span]) -> tuple[Span, ...]:
    """The parts of other spans that lie within one."""
    return tuple(Span(max(span.start, one.start), min(span.end, one.end)) for one in others if span.overlap(one) > 1e-6)


def _loudness(samples: NDArray[np.float32]) -> float:
    """Root mean square, of full scale 1."""
    # without a copy of what may be hours
    return (
        float(np.sqrt(np.einsum("i,i->", samples, samples, dtype=np.float64) / samples.size)) if samples.size else 0.0
    )


def _padded(regions: Sequence[Span], end: float, padding: float) -> list[Span]:
    """Widen regions by ``padding`` where neighbours and the ends of the sound leave room."""
    starts = [max(0.0, span.start - padding) for span in regions]
    ends = [min(end, span.end + padding) for span in regions]
    for place in range(1, len(regions)):
        if starts[place] < ends[place - 1]:
            middle = (regions[place - 1].end + regions[place].start) / 2
            starts[place] = ends[place - 1] = middle
    return [Span(start, max(start, stop)) for start, stop in zip(starts, ends, strict=True)]


def _told_apart(
    waveform: NDArray[np.float32],
    regions: Sequence[Span],
    describe: DescribeVoices | None,
    settings: VoiceSettings,
) -> list[tuple[Span, int]]:
    """Regions cut where the speaker changes, with a label per speaker."""
    windows = _windows(regions, settings)
    vectors = describe([_cut(waveform, window) for window in windows]) if describe and windows else []
    known = [(span, vector) for span, vector in zip(windows, vectors, strict=False) if vector is not None]
    if not known:
        return [(region, 0) for region in regions]
    spans = [span for span, _ in known]
    stacked = np.array([vector for _, vector in known], dtype=np.float32)  # (windows, dimension)
    voices = _speakers(stacked, _founding(spans, regions), settings)
    if len(voices) == 1:
        return [(region, 0) for region in regions]
    likeness = stacked @ voices.T  # (windows, speakers)
    starts = np.array([span.start for span in spans])
    middles = np.array([(span.start + span.end) / 2 for span in spans])
    halves = np.array([span.duration / 2 for span in spans])
    pieces: list[tuple[Span, int]] = []
    for region in regions:
        first, last = np.searchsorted(starts, [region.start - settings.window - 1.0, region.end])
        near = slice(max(0, int(first) - 1), max(int(last), int(first)) + 1)
        pieces += _label(region, middles[near], halves[near], likeness[near])
    return pieces


def _windows(regions: Sequence[Span], settings: VoiceSettings) -> list[Span]:
    """Overlapping windows over the speech; short pauses are not avoided, or windows would be too short."""
    stretches: list[Span] = []
    for region in regions:
        if stretches and region.start - stretches[-1].end < settings.longest_join:
            stretches[-1] = Span(stretches[-1].start, region.end)
        else:
            stretches.append(region)
    windows = []
    for stretch in stretches:
        if stretch.duration < LEAST_WINDOW_SECONDS:
            continue
        last = max(stretch.start, stretch.end - settings.window)
        starts = [*np.arange(stretch.start, last, settings.step).tolist(), last]
        windows += [Span(start, min(stretch.end, start + settings.window)) for start in starts]
    return windows


def _founding(spans: Sequence[Span], regions: Sequence[Span]) -> NDArray[np.bool_]:
    """(windows,) which windows are long and full enough of speech to found a speaker on."""
    edges = np.array([(region.start, region.end) for region in regions]).ravel()
    # Seconds of speech up to each edge: rising within regions, level between them.
    spoken = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))])
    starts, ends = np.array([(span.start, span.end) for span in spans]).T
    speech = np.interp(ends, edges, spoken) - np.interp(starts, edges, spoken)
    founding = (ends - starts >= FOUNDING_SECONDS) & (speech >= FOUNDING_SHARE * (ends - starts))
    return founding if founding.any() else np.ones(len(spans), dtype=np.bool_)


def _speakers(
    vectors: NDArray[np.float32], founding: NDArray[np.bool_], settings: VoiceSettings
) -> NDArray[np.float32]:
    """(speakers, dimension) float32 unit vectors: the mean voice of each speaker."""
    chosen = vectors[founding]
    labels = group_alike(chosen, settings.same_speaker)
    spoken = np.bincount(labels, weights=[settings.step] * len(labels)) + settings.window - settings.step
    keep = np.flatnonzero(spoken >= min(settings.least_speaking, 0.1 * float(spoken.sum())))
    keep = keep if keep.size else np.array([int(spoken.argmax())])
    means = np.array([chosen[labels == label].mean(axis=0) for label in keep])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)


def _label(
    region: Span,
    middles: NDArray[np.float64],
    halves: NDArray[np.float64],
    likeness: NDArray[np.float32],
) -> list[tuple[Span, int]]:
    """Cut one region where the most alike speaker changes.

    Args:
        region: a region of speech.
        middles: (windows,) seconds, of the windows around it.
        halves: (windows,) half their lengths, seconds.
        likeness: (windows, speakers) cosines.
    """
    count = max(1, round(region.duration / _GRID_SECONDS))
    edges = np.linspace(region.start, region.end, count + 1)
    moments = (edges[:-1] + edges[1:]) / 2
    # A window speaks for its middle more than for its ends; the nearest speaks where none reaches.
    labels: list[int] = []
    for first in range(0, count, _MOMENTS):
        some = moments[first : first + _MOMENTS]
        reach = 1.0 - np.abs(some[:, None] - middles[None, :]) / halves[None, :]
        weights = np.maximum(reach, 0.0) + 1e-6 * np.exp(np.minimum(reach, 0.0))
        labels += (weights @ likeness).argmax(axis=1).tolist()
    runs = _runs(labels, round(_SHORTEST_CHANGE / _GRID_SECONDS))
    return [(Span(float(edges[first]), float(edges[last])), label) for first, last, label in runs]


def _runs(labels: Sequence[int], shortest: int) -> list[tuple[int, int, int]]:
    """Runs (first, after last, label) of equal labels; those under ``shortest`` join a neighbour."""
    runs = _merged([(place, place + 1, label) for place, label in enumerate(labels)])
    while len(runs) > 1:
        lengths = [last - first for first, last, _ in runs]
        small = int(np.argmin(lengths))
        if lengths[small] >= shortest:
            break
        before = lengths[small - 1] if small else -1
        after = lengths[small + 1] if small + 1 < len(runs) else -1
        label = runs[small - 1][2] if before >= after else runs[small + 1][2]
        runs[small] = (*runs[small][:2], label)
        near = slice(max(0, small - 1), small + 2)
        runs[near] = _merged(runs[near])
    return runs


def _merged(runs: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours of one label as one run."""
    merged: list[tuple[int, int, int]] = []
    for first, last, label in runs:
        if merged and merged[-1][2] == label:
            merged[-1] = (merged[-1][0], last, label)
        else:
            merged.append((first, last, label))
    return merged


def _joined(pieces: Sequence[tuple[Span, int]], longest_join: float) -> list[tuple[Span, int]]:
    """Join neighbours of one speaker across short pauses."""
    joined: list[tuple[Span, int]] = []
    for span, speaker in pieces:
        if joined and joined[-1][1] == speaker and span.start - joined[-1][0].end < longest_join:
            joined[-1] = (Span(joined[-1][0].start, span.end), speaker)
        else:
            joined.append((span, speaker))
    return joined
