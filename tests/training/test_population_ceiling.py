from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.space import Modality
from search.metrics import auc
from training.population.ceiling import ceiling_figures, ceiling_vectors, list_vectors, log_likelihood_ratio
from training.population.lists import Lists, draw_lists
from training.population.samples import NOISE
from training.population.splits import PopulationSpec

Array = NDArray[np.float64]
VOICE, FACE = NOISE[Modality.VOICE], NOISE[Modality.FACE]


def _normal(value: Array, mean: Array | float, deviation: float) -> Array:
    return np.exp(-0.5 * ((value - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def _integrated(voice: Array, face: Array, voice_noise: float, face_noise: float) -> float:
    """The log ratio by summing densities over everything a person's latents might be."""
    latent = np.linspace(-12, 12, 48_001)[:, None]
    prior = _normal(latent, 0.0, 1.0) * (latent[1] - latent[0])
    heard, seen = _normal(voice[1:], latent, voice_noise), _normal(face[1:], latent, face_noise)
    one = (prior * heard * seen).sum(0)
    two = (prior * heard).sum(0) * (prior * seen).sum(0)
    # Half of all people are of the shown sex: 1/2 for one person, 1/2 · 1/2 for two.
    return float(np.log(one / two).sum() + np.log(0.5 / 0.25))


@pytest.mark.parametrize(("voice_noise", "face_noise"), [(0.5, 0.5), (0.3, 0.9), (1.4, 0.6)])
def test_the_closed_form_agrees_with_integrating_the_densities(voice_noise: float, face_noise: float) -> None:
    latents = np.random.default_rng(4).normal(0, 1.2, (2, 6, 6))
    latents[..., 0] = 1.0
    voices, faces = ceiling_vectors(*latents, voice_noise, face_noise)
    expected = [[_integrated(v, f, voice_noise, face_noise) for f in latents[1]] for v in latents[0]]
    assert np.allclose(voices @ faces.T, expected, atol=1e-8)


def _simulate(count: int, seed: int) -> tuple[Array, Array]:
    """One voice and one face of so many people of one sex, (count, 6) each."""
    random = np.random.default_rng(seed)
    person = random.standard_normal((count, 5))
    voices, faces = (person + noise * random.standard_normal((count, 5)) for noise in (VOICE, FACE))
    return np.insert(voices, 0, 1.0, 1), np.insert(faces, 0, 1.0, 1)


def _cosine(voice: Array, face: Array) -> Array:
    return (voice * face).sum(1) / np.linalg.norm(voice, axis=1) / np.linalg.norm(face, axis=1)


OTHER_SCORERS: dict[str, Callable[[Array, Array], Array]] = {
    "cosine": _cosine,
    "dot product": lambda voice, face: (voice * face).sum(1),
    "negative distance": lambda voice, face: -np.linalg.norm(voice - face, axis=1),
    "negative city-block distance": lambda voice, face: -np.abs(voice - face).sum(1),
    "worst latent": lambda voice, face: -np.abs(voice - face).max(1),
    "four of five latents": lambda voice, face: -np.linalg.norm((voice - face)[:, 1:], axis=1),
}


@pytest.mark.parametrize("name", OTHER_SCORERS)
def test_no_other_scorer_tells_one_person_from_two_better(name: str) -> None:
    voices, faces = _simulate(20_000, 5)
    strangers = np.roll(faces, 1, axis=0)
    heard, seen = ceiling_vectors(voices, faces)
    best = auc((heard * seen).sum(1), (heard * np.roll(seen, 1, axis=0)).sum(1))
    other = OTHER_SCORERS[name]
    found = auc(other(voices[:, 1:], faces[:, 1:]), other(voices[:, 1:], strangers[:, 1:]))
    assert 0.5 < found < best - 0.001


def test_a_pair_of_different_sexes_scores_below_every_pair_of_one_sex() -> None:
    random = np.random.default_rng(1)
    voices, faces = random.normal(0, 1.5, (2, 500, 6))
    voices[:, 0], faces[:, 0] = 1.0, np.where(np.arange(500) % 2, 1.0, -1.0)
    scores = log_likelihood_ratio(voices, faces)
    assert scores[:, ::2].max() < -800 < scores[:, 1::2].min() and np.isfinite(scores).all()


def test_the_cosine_of_the_vectors_is_the_ratio_over_one_constant() -> None:
    voices, faces = ceiling_vectors(*_simulate(50, 2))
    lengths = np.linalg.norm(voices, axis=1)[:, None] * np.linalg.norm(faces, axis=1)[None, :]
    assert np.ptp(lengths) < 1e-9 * lengths.max()


@pytest.mark.parametrize(
    ("voices", "message"),
    [(np.zeros((2, 6)), "sex, -1 or 1"), (np.ones((2, 5)), r"\(n, 6\)"), (np.full((2, 6), np.nan), "finite")],
)
def test_latents_that_cannot_be_meant_are_refused(voices: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_likelihood_ratio(voices, np.ones((2, 6)))


def test_without_noise_there_is_no_ceiling() -> None:
    with pytest.raises(ValueError, match="above 0"):
        ceiling_vectors(np.ones((1, 6)), np.ones((1, 6)), voice_noise=0.0)


@pytest.fixture(scope="module")
def questions() -> tuple[Lists, dict[str, Array]]:
    split = PopulationSpec().test
    lists = draw_lists(split)
    return lists, list_vectors(lists, split.seed)


@pytest.fixture(scope="module")
def figures(questions: tuple[Lists, dict[str, Array]]) -> dict[str, Any]:
    return ceiling_figures(*questions)


def test_the_populations_ceiling_auc_is_between_93_and_98_percent(figures: dict[str, Any]) -> None:
    verification = figures["verification"]
    assert 0.93 < verification["auc"] < 0.98
    assert 0.8 < verification["same_sex"]["auc"] < verification["auc"]
    assert verification["pairs"] == verification["same_sex"]["pairs"] == 10_000


def test_the_ceiling_lies_far_above_chance_and_below_certainty(figures: dict[str, Any]) -> None:
    for answer in figures["retrieval"].values():
        assert 15 * answer["chance"] < answer["map"] < 0.7
        assert (answer["gallery"], answer["probes"], answer["people"]) == (1_000, 1_000, 200)


def test_more_candidates_and_one_sex_are_harder(figures: dict[str, Any]) -> None:
    for answer in figures["matching_1_to_n"].values():
        for kind in ("all", "same_sex"):
            accuracies = [answer[kind][str(count)]["accuracy"] for count in range(2, 11)]
            assert accuracies == sorted(accuracies, reverse=True) and accuracies[-1] > 0.5
        assert all(answer["all"][count]["accuracy"] > one["accuracy"] for count, one in answer["same_sex"].items())


def test_the_figures_are_those_of_the_lists(questions: tuple[Lists, dict[str, Array]], figures: dict[str, Any]) -> None:
    lists, vectors = questions
    scores = {label: [] for label in (True, False)}
    for pair in lists.verification["G"]:
        scores[pair.genuine].append(float(vectors[pair.voice.path] @ vectors[pair.face.path]))
    assert figures["verification"]["same_sex"]["auc"] == auc(scores[True], scores[False])


def test_other_samples_vectors_come_out_at_chance(questions: tuple[Lists, dict[str, Array]]) -> None:
    lists, vectors = questions
    order = np.random.default_rng(3).permutation(1000)
    paths, faces = [one.path for one in lists.voices], [one.path for one in lists.faces]
    shuffled = {**{path: vectors[paths[index]] for path, index in zip(paths, order, strict=True)}}
    shuffled |= {path: vectors[path] for path in faces}
    figures = ceiling_figures(lists, shuffled)
    assert figures["verification"]["auc"] == pytest.approx(0.5, abs=0.03)
    assert figures["retrieval"]["voice_to_face"]["map"] < 2 * figures["retrieval"]["voice_to_face"]["chance"]
