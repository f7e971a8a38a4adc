"""How long the published lists take, beside one scikit-learn call per probe and beside plain NumPy.

Run ``python -m tests.benchmarks.evaluation_speed [--protocol DIR] [--intervals] [--json]``. Random vectors for all
names of the lists go through the whole evaluation in this process: reading, drawing, ten verification and eight
matching lists and more, both directions of 20,000 × 20,000, both oracles. Beside it, on the same vectors in the same
run: what scikit-learn's average precision takes for a sample of the probes, their scores given to it for nothing, in
proportion for all of both directions; and mean average precision in plain NumPy, blocks of probes at a time, each
block's scores sorted once. Trust the ratios rather than the seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.generated_lists import with_drawn
from search.protocol_report import Measured, report_on
from search.published_lists import read_trial_lists
from search.sample_vectors import SampleVectors, read_sample_vectors
from search.trial_lists import TrialLists
from search.two_way import rank_both_ways
from tests.conftest import SHARED

DIMENSION, BLOCK = 256, 500


@dataclass(frozen=True)
class Timing:
    """One run, in seconds; ratios are to the whole evaluation, but for that of ranking.

    Args:
        reading: of lists and vectors, and drawing.
        scoring: all lists and oracles, without intervals.
        ranking: of that, both directions of retrieval.
        scikit_learn: one call per probe, both directions, in proportion.
        plain_numpy: mean average precision alone, both directions.
        times_faster_than_scikit_learn: reading and scoring against it.
        times_plain_numpy: reading and scoring against it; below 1 is faster.
        ranking_times_plain_numpy: the like for like.
        largest_difference: of a mean average precision between ours, plain NumPy's and, on its sample, scikit-learn's.
        resident_mb: the most that this process held until then.
        intervals: seconds that all intervals took on top, if they were asked for.
    """

    reading: float
    scoring: float
    ranking: float
    scikit_learn: float
    plain_numpy: float
    times_faster_than_scikit_learn: float
    times_plain_numpy: float
    ranking_times_plain_numpy: float
    largest_difference: float
    resident_mb: float
    intervals: float | None


def measure(folder: Path, sampled: int, intervals: bool) -> Timing:
    """Evaluate, and measure the others beside it."""
    with TemporaryDirectory() as kept:
        file = _random_file(folder, Path(kept) / "vectors.npz")
        began = time.perf_counter()
        lists = with_drawn(read_trial_lists(folder))
        vectors = read_sample_vectors(file, lists)
        reading = time.perf_counter() - began
    scoring, report = _timed(lambda: report_on(lists, Measured(vectors), intervals=False))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    sides = vectors.sides(lists)
    ranking, both = _timed(lambda: rank_both_ways(sides[Modality.VOICE], sides[Modality.FACE]))
    plain, maps = _timed(lambda: [_plain(vectors, lists, probe) for probe in (Modality.VOICE, Modality.FACE)])
    told = [report["retrieval"][way]["map"] for way in ("voice_to_face", "face_to_voice")]
    calls, off = _scikit_learn(vectors, lists, sampled, both[0].average_precision)
    whole = reading + scoring
    longer = None
    if intervals:
        longer = _timed(lambda: report_on(lists, Measured(vectors)))[0] - scoring
    return Timing(
        reading, scoring, ranking, calls, plain, calls / whole, whole / plain, ranking / plain,
        max(off, *(abs(one - other) for one, other in zip(told, maps, strict=True))), resident, longer,
    )  # fmt: skip


def _random_file(folder: Path, file: Path) -> Path:
    """Vectors for all names, written by another process, so that this one's memory is that of the evaluation."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        return apart.submit(_write, folder, file).result()


def _write(folder: Path, file: Path) -> Path:
    lists = read_trial_lists(folder)
    names = [path for modality in Modality for path in lists.catalogues[modality].paths]
    given = np.random.default_rng(0).standard_normal((len(names), DIMENSION), dtype=np.float32)
    np.savez(file, path=np.array(names), vector=given)
    return file


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _single(
    vectors: SampleVectors, lists: TrialLists, modality: Modality
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rows = lists.retrieval[modality]
    given = vectors.vectors[vectors.rows[modality][rows]]
    unit = (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float32)
    return unit, lists.catalogues[modality].person[rows]


def _plain(vectors: SampleVectors, lists: TrialLists, probe: Modality) -> float:
    """Blocks of single-precision scores, sorted once each; ranks of the right answers are looked up in them."""
    asked, people = _single(vectors, lists, probe)
    gallery, shown = _single(vectors, lists, probe.other)
    found = []
    for start in range(0, len(asked), BLOCK):
        scores = asked[start : start + BLOCK] @ gallery.T
        ranked = np.sort(scores, axis=1)
        for line, places, person in zip(scores, ranked, people[start : start + BLOCK], strict=True):
            right = np.sort(line[shown == person])[::-1]
            if len(right):
                ranks = len(places) - np.searchsorted(places, right)
                found.append(np.mean(np.arange(1, len(right) + 1) / ranks))
    return float(np.mean(found))


def _scikit_learn(
    vectors: SampleVectors, lists: TrialLists, sampled: int, expected: NDArray[np.float64]
) -> tuple[float, float]:
    """Seconds for all probes of both directions in proportion, and the largest difference of one probe's precision."""
    from sklearn.metrics import average_precision_score

    asked, people = _single(vectors, lists, Modality.VOICE)
    gallery, shown = _single(vectors, lists, Modality.FACE)
    chosen = np.linspace(0, len(asked) - 1, num=sampled, dtype=int)
    scores = asked[chosen].astype(np.float64) @ gallery.T.astype(np.float64)
    right = people[chosen][:, None] == shown[None, :]
    seconds, precision = _timed(
        lambda: [average_precision_score(mask, line) for mask, line in zip(right, scores, strict=True)]
    )
    total = sum(map(len, lists.retrieval.values()))
    return seconds * total / len(chosen), abs(float(np.mean(precision) - np.mean(expected[chosen])))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", type=Path, default=SHARED / "data" / "protocol", help="folder of the lists")
    parser.add_argument("--sampled", type=int, default=200, help="probes that scikit-learn judges")
    parser.add_argument("--intervals", action="store_true", help="measure all intervals as well")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of sentences")
    options = parser.parse_args()
    told = measure(options.protocol, options.sampled, options.intervals)
    if options.json:
        print(json.dumps(asdict(told)))
        return
    print(f"reading {told.reading:.1f} s, scoring {told.scoring:.1f} s, at most {told.resident_mb:.0f} MB resident")
    print(
        f"one scikit-learn call per probe: {told.scikit_learn:.0f} s, {told.times_faster_than_scikit_learn:.1f} times"
    )
    print(
        f"plain NumPy mAP: {told.plain_numpy:.1f} s; ours takes {told.times_plain_numpy:.2f} times as long, ranking "
        f"alone {told.ranking_times_plain_numpy:.2f} times"
    )
    print(f"largest difference of a mean average precision: {told.largest_difference:.1e}")
    if told.intervals is not None:
        print(f"all intervals: {told.intervals:.0f} s on top")


if __name__ == "__main__":
    main()
