"""What a correction for hubs gains in retrieval, on invented people never seen.

Run ``python -m tests.benchmarks.hubness --home DIR [--recipe visavox …] [--seeds 1]``. Each method learns from the
invented people that everybody learns from (2 to 6 minutes; a home that is kept goes on where it was). Some samples lie
near many others, *hubs*, and come up for whoever asks; corrections weigh them down, by how near they lie to samples of
the probes' modality: those of the people who are searched among ("gallery"), or one of everybody who was learned from
("bank"), as a server would have them before it is asked. The number of each correction is chosen on validation people,
by the mean of both ways, and measured on test people, or with ``--people`` on people who are invented for this alone
and by whom nothing was ever chosen. The last line is what the published folder does by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from deploy.settings import load_settings
from deploy.training import invite_measured, order_population, sample_readers, train_population
from deploy.wiring import Installation
from encoders.encoder import Encoder
from encoders.probe_centres import ProbeCentres, without_centre
from encoders.space import Modality
from search.intervals import paired_difference
from search.points import embed_files
from search.ranking import judge
from training.corpora import Manifest, Sample, Split, read_manifest
from training.loop import RunSettings
from training.population.protocol import write_training
from training.population.splits import TrainingSpec
from training.recipe import load_recipe

NOBODY_ELSES = 777
"""Seed of people whom no training and no choice has seen."""
SAMPLES = 5

Array = NDArray[np.float64]
Vectors = Mapping[Modality, Array]
Correction = Callable[[Array, Array, Array], Array]


def local_scaling(near: int, probes: Array, gallery: Array, others: Array) -> Array:
    """Twice the cosine, less the mean cosine of either side to its ``near`` nearest (Conneau et al., 2018, CSLS).

    Args:
        near: k.
        probes: (p, d) of unit length.
        gallery: (g, d) of the other modality; the probes' nearest are among these.
        others: (o, d) of the probes' modality, among which are the gallery's nearest.
    """
    cosines = probes @ gallery.T

    def crowd(of: Array) -> Array:
        return np.asarray(np.sort(of, axis=1)[:, -near:].mean(axis=1))

    return np.asarray(2 * cosines - crowd(cosines)[:, None] - crowd(gallery @ others.T)[None])


def inverted_softmax(beta: float, probes: Array, gallery: Array, others: Array) -> Array:
    """β · cosine − log Σ exp(β · cosine of the candidate to others of the probes' modality) (Smith et al., 2017)."""
    return np.asarray(beta * probes @ gallery.T - logsumexp(beta * gallery @ others.T, axis=1)[None])


def without_mean(share: float, probes: Array, gallery: Array, others: Array) -> Array:
    """The cosine, less a share of the candidate's product with the mean of the others (Suzuki et al., 2013)."""
    return np.asarray(probes @ gallery.T - share * (gallery @ others.mean(axis=0))[None])


def by_moments(beta: float, probes: Array, gallery: Array, others: Array) -> Array:
    """The inverted softmax, with the others told by their mean and covariance: the first two cumulants of the sum."""
    mean, covariance = others.mean(axis=0), np.cov(others.T, bias=True)
    spread = np.einsum("gd,de,ge->g", gallery, covariance, gallery)
    return np.asarray(probes @ gallery.T - (gallery @ mean + beta / 2 * spread)[None])


def uncorrected(probes: Array, gallery: Array, _others: Array) -> Array:
    """The cosine."""
    return np.asarray(probes @ gallery.T)


CORRECTIONS: dict[str, dict[float, Correction]] = {
    "CSLS, k": {near: partial(local_scaling, near) for near in (10, 50)},
    "inverted softmax, β": {beta: partial(inverted_softmax, beta) for beta in (1, 2, 3, 5, 10, 30)},
    "its moments, β": {beta: partial(by_moments, beta) for beta in (1, 2, 3, 5)},
    "without the mean, share": {share: partial(without_mean, share) for share in (0.5, 1.0, 1.5)},
}


@dataclass(frozen=True)
class Side:
    """Samples of people: vectors, and whose they are, in the same order; what cannot be encoded is left out."""

    vectors: Vectors
    people: Mapping[Modality, NDArray[np.str_]]

    @classmethod
    def of(cls, encoder: Encoder, samples: Iterable[Sample], manifest: Manifest) -> Side:
        """Encode samples of a manifest."""
        whose = {kind: {one.path: one.identity for one in samples if one.modality is kind} for kind in Modality}
        located = {one.path: manifest.locate(one) for one in manifest.samples}
        files = {kind: {path: located[path] for path in some} for kind, some in whose.items()}
        found, unusable = embed_files(files, encoder, sample_readers())
        told = f", such as {unusable[0].path}: {unusable[0].reason}" if unusable else ""
        print(f"  {sum(map(len, found.values()))} samples, {len(unusable)} unusable{told}", flush=True)
        return cls(
            {kind: np.stack(list(some.values())).astype(np.float64) for kind, some in found.items()},
            {kind: np.array([whose[kind][path] for path in some]) for kind, some in found.items()},
        )

    def precisions(self, correction: Correction, bank: Vectors | None, probe: Modality) -> Array:
        """(probes,) average precision; ``bank`` None: the other samples are those of the probes."""
        probes, gallery = self.vectors[probe], self.vectors[probe.other]
        scores = correction(probes, gallery, (bank or self.vectors)[probe])
        return judge(scores, self.people[probe][:, None] == self.people[probe.other][None]).average_precision


def first_of_everybody(manifest: Manifest) -> Iterable[Sample]:
    """A face and a voice of each person: what a server could keep of whom it learned from."""
    return {(one.identity, one.modality): one for one in reversed(manifest.samples)}.values()


def compare(chosen_on: Side, measured: Side, bank: Vectors, centres: ProbeCentres) -> None:
    """Print each correction's best number and what it gains, people resampled; last, what the folder does itself."""
    ways = {probe: f"{probe} → {probe.other}" for probe in (Modality.VOICE, Modality.FACE)}
    plain = {probe: measured.precisions(uncorrected, None, probe) for probe in ways}
    figures = "  ".join(f"{ways[probe]} {np.nanmean(one):.3f}" for probe, one in plain.items())
    before = np.mean([np.nanmean(chosen_on.precisions(uncorrected, None, probe)) for probe in ways])
    print(f"  {'cosine':38} {before:.3f}  {figures}", flush=True)
    for name, numbers in CORRECTIONS.items():
        for whose, others in (("gallery", None), ("bank", bank)):
            gained = {
                number: np.mean([np.nanmean(chosen_on.precisions(one, others, probe)) for probe in ways])
                for number, one in numbers.items()
            }
            best = max(gained, key=lambda number: gained[number])
            told = [
                f"{way} {difference(measured, plain, probe, measured.precisions(numbers[best], others, probe))}"
                for probe, way in ways.items()
            ]
            print(f"  {f'{name} = {best}, {whose}':38} {gained[best]:.3f}  {'  '.join(told)}", flush=True)
    told = []
    for probe, way in ways.items():
        asking = measured.vectors[probe]
        if probe in centres:
            asking = without_centre(asking, centres[probe])
        moved = Side({**measured.vectors, probe: asking}, measured.people)
        told.append(f"{way} {difference(measured, plain, probe, moved.precisions(uncorrected, None, probe))}")
    print(f"  {'as it was published':38} {'':5}  {'  '.join(told)}", flush=True)


def difference(measured: Side, plain: Mapping[Modality, Array], probe: Modality, ours: Array) -> str:
    """A mean average precision, and what it gains over the cosine's."""
    found = paired_difference(ours, plain[probe], measured.people[probe])
    low, high = found.interval.low, found.interval.high
    return f"{np.nanmean(ours):.3f} ({found.difference:+.3f}, {low:+.3f} to {high:+.3f})"


def main() -> None:
    """Print, per method and seed, mAP of both ways with and without corrections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="what is made is kept here")
    parser.add_argument("--recipe", action="append", help="a method; may be given again (default: visavox)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--people", type=int, help="measure on so many people who are invented for this alone")
    asked = parser.parse_args()
    asked.home.mkdir(parents=True, exist_ok=True)
    opened = Installation(load_settings({"VISAVOX_HOME": str(asked.home), "VISAVOX_DEVICE": "cpu"}))
    measured = invite_measured(opened, lambda *_: None)
    asked_of = [read_manifest(measured, split) for split in (Split.VALIDATION, Split.TEST)]
    if asked.people:
        fresh = write_training(asked.home, TrainingSpec(people=asked.people, samples=SAMPLES, seed=NOBODY_ELSES))
        asked_of[1] = read_manifest(fresh, Split.TRAIN)
    taught = read_manifest(write_training(asked.home, TrainingSpec()), Split.TRAIN)
    print(
        "mean of both mAPs of validation people, then mAP of those measured (difference to the cosine, 95 % interval)"
    )
    for name in asked.recipe or ["visavox"]:
        for seed in range(asked.seeds):
            order = order_population(opened, load_recipe(name), TrainingSpec(), run=RunSettings(seed=seed, curves=True))
            trained = train_population(opened, order, lambda *_: None).encoder
            encoder = Encoder.load(trained, device="cpu", precision="auto")
            print(f"{name}, seed {seed} ({trained.name})", flush=True)
            bank = Side.of(encoder, first_of_everybody(taught), taught)
            validation, test = (Side.of(encoder, one.samples, one) for one in asked_of)
            compare(validation, test, bank.vectors, encoder.probe_centres)
    opened.close()


if __name__ == "__main__":
    main()
