"""How long judging N × N rankings takes, beside one scikit-learn call per probe.

Run ``python -m tests.benchmarks.evaluation_speed [--samples 5000] [--sampled 50] [--json]``. Both work on the
same vectors in one process and give the same mean average precision; ours also gives recall and reciprocal
rank. scikit-learn's time is measured on a sample of the probes, with their scores given to it for nothing,
and scaled to all. Trust the ratio rather than the seconds.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from search.ranking import retrieval

DIMENSION, SAMPLES_PER_PERSON = 128, 20


@dataclass(frozen=True)
class Measured:
    """One run; ``memory_mb`` is the most that judging held beside its input."""

    samples: int
    seconds: float
    scikit_learn_seconds: float
    ratio: float
    map: float
    largest_difference: float
    memory_mb: float


def vectors(count: int, people: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.float32]:
    """(count, 128) unit vectors around their people's centres."""
    centres = np.random.default_rng(1).normal(size=(int(people.max()) + 1, DIMENSION))
    samples = centres[people] + 3.0 * random.normal(size=(count, DIMENSION))
    unit: NDArray[np.float32] = (samples / np.linalg.norm(samples, axis=1, keepdims=True)).astype(np.float32)
    return unit


def measure(count: int, sampled: int) -> Measured:
    """Judge ``count`` voices in ``count`` faces, and ``sampled`` of them by scikit-learn."""
    random = np.random.default_rng(0)
    people = np.arange(count) // SAMPLES_PER_PERSON
    voices, faces = vectors(count, people, random), vectors(count, people, random)
    retrieval(voices[:10], people[:10], faces, people)  # to warm up
    started = time.perf_counter()
    judged = retrieval(voices, people, faces, people)
    seconds = time.perf_counter() - started
    chosen = np.linspace(0, count - 1, num=min(sampled, count), dtype=int)
    scores = (voices[chosen].astype(np.float64) @ faces.T.astype(np.float64)).astype(np.float32)
    right = people[chosen][:, None] == people[None, :]
    started = time.perf_counter()
    expected = [average_precision_score(wanted, line) for wanted, line in zip(right, scores, strict=True)]
    one_by_one = (time.perf_counter() - started) * count / len(chosen)
    off = float(np.abs(judged.average_precision[chosen] - expected).max())
    return Measured(count, seconds, one_by_one, one_by_one / seconds, judged.map, off, _memory(voices, faces, people))


def _memory(voices: NDArray[np.float32], faces: NDArray[np.float32], people: NDArray[np.intp]) -> float:
    tracemalloc.start()
    retrieval(voices, people, faces, people)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000, help="voices, and as many faces")
    parser.add_argument("--sampled", type=int, default=50, help="probes that scikit-learn judges")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    told = measure(options.samples, options.sampled)
    if options.json:
        print(json.dumps(asdict(told)))
        return
    print(f"{told.samples} x {told.samples}: {told.seconds:.2f} s, at most {told.memory_mb:.0f} MB")
    print(f"one scikit-learn call per probe: {told.scikit_learn_seconds:.1f} s, {told.ratio:.0f} times as long")
    print(f"largest difference of an average precision: {told.largest_difference:.1e} (mAP {told.map:.3f})")


if __name__ == "__main__":
    main()
