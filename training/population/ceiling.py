"""The best score anyone can reach: the likelihood ratio of "one person" against "two people".

It sees what no recipe sees, each sample's own noisy shared latents, and knows prior and noise; by the
lemma of Neyman and Pearson (On the problem of the most efficient tests of statistical hypotheses, 1933)
no other score of a pair tells genuine from impostor better, at any threshold.

**One continuous latent.** A person's is z ~ N(0, 1); a voice shows x = z + a·e, a face y = z + b·e', with
e and e' standard normal and independent. So x ~ N(0, 1 + a²), y ~ N(0, 1 + b²), and with

    u = x / √(1 + a²),   w = y / √(1 + b²),   ρ = 1 / √((1 + a²)(1 + b²))

(u, w) is, for one person, normal with unit variances and correlation ρ (the covariance of x and y is
var z = 1), and for two people the same with correlation 0. The logarithm of the ratio of the densities:

    log p(u, w | one) − log p(u, w | two)
      = −½ log(1 − ρ²) − (u² − 2ρuw + w²) / (2(1 − ρ²)) + (u² + w²) / 2
      = −½ log(1 − ρ²) + (ρ / (1 − ρ²)) · u·w − (ρ² / (2(1 − ρ²))) · (u² + w²)

The latents are independent, so their terms add. **Sex** is shown without noise, each as likely: equal
sexes have probability ½ under "one person" and ¼ under "two", which adds log 2; different sexes are
impossible under "one person", a ratio of 0, whose logarithm is set to :data:`DIFFERENT_SEX`, below
anything that the other terms can make of equal sexes.

The sum is a quadratic form in which voice and face meet only in products, and hence a dot product of
one vector of the voice and one of the face: (g·u, Q(u), 1, s·sex) and (g·w, 1, Q(w) + c, s·sex), where g² is
the factor of u·w, Q the terms of one side alone, and s² and c make the two values of the sexes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.space import Modality
from search import metrics
from training.population.lists import KINDS, SAME_SEX, UNRESTRICTED, Lists, Pair, Trial
from training.population.samples import NOISE, draw_latents

DIFFERENT_SEX = -1000.0
"""Score, in nats, of a voice and a face of different sexes: they cannot be one person's."""

_Vectors = NDArray[np.float64]
_ByPath = Mapping[str, _Vectors]
_ANSWERS = {Modality.VOICE: "voice_to_face", Modality.FACE: "face_to_voice"}
_TRIAL_KINDS = {UNRESTRICTED: "all", SAME_SEX: "same_sex"}


def log_likelihood_ratio(voices: ArrayLike, faces: ArrayLike) -> _Vectors:
    """The ceiling's score of every voice against every face, in nats; above 0 speaks for one person.

    Args:
        voices: (n, 6) shared latents that each voice shows: sex, then the continuous ones.
        faces: (m, 6) the same of each face.

    Returns:
        (n, m) float64.

    Raises:
        ValueError: the shapes are others, or a sex is neither -1 nor 1.
    """
    one, other = ceiling_vectors(voices, faces)
    scores: _Vectors = one @ other.T
    return scores


def ceiling_vectors(
    voices: ArrayLike,
    faces: ArrayLike,
    voice_noise: float = NOISE[Modality.VOICE],
    face_noise: float = NOISE[Modality.FACE],
) -> tuple[_Vectors, _Vectors]:
    """Vectors whose dot products are the log-likelihood ratios of the module's text.

    Two further columns, each 0 on one side, make all vectors of a side equally long without changing a
    product. The cosine of a voice's and a face's vector is then the ratio over one constant: whoever
    ranks by cosine can be shown these and must come out at the ceiling.

    Args:
        voices: (n, 6) shared latents that each voice shows: sex, then the continuous ones.
        faces: (m, 6) the same of each face.
        voice_noise: deviation of the voices' noise, above 0.
        face_noise: deviation of the faces' noise, above 0.

    Returns:
        (n, 10) and (m, 10) float64.

    Raises:
        ValueError: the shapes are others, a sex is neither -1 nor 1, or a noise is not above 0.
    """
    if not (voice_noise > 0 and face_noise > 0):
        raise ValueError(f"without noise there is no ceiling: noise must be above 0, got {voice_noise}, {face_noise}")
    voice_sex, heard = _split(voices, "voices", voice_noise)
    face_sex, seen = _split(faces, "faces", face_noise)
    correlation = 1 / np.sqrt((1 + voice_noise**2) * (1 + face_noise**2))
    rest = 1 - correlation**2
    together, alone = np.sqrt(correlation / rest), -(correlation**2) / (2 * rest)
    same, other = np.log(2.0), DIFFERENT_SEX
    half, middle = np.sqrt((same - other) / 2), (same + other) / 2
    constant = middle - 0.5 * np.log(rest) * heard.shape[1]
    voice_terms, face_terms = alone * (heard**2).sum(1), alone * (seen**2).sum(1) + constant
    voice = np.column_stack([together * heard, voice_terms, np.ones(len(heard)), half * voice_sex])
    face = np.column_stack([together * seen, np.ones(len(seen)), face_terms, half * face_sex])
    return (
        np.column_stack([voice, _missing_length(voice), np.zeros(len(voice))]),
        np.column_stack([face, np.zeros(len(face)), _missing_length(face)]),
    )


def list_vectors(lists: Lists, seed: int) -> dict[str, _Vectors]:
    """The ceiling's vector of every sample that the lists name, by its path.

    Args:
        lists: of a split.
        seed: that split's.

    Returns:
        (10,) float64 each, utterances first.
    """
    voices, faces = (
        np.array([draw_latents(one.person, one.modality, one.number, seed).as_array() for one in entries])
        for entries in (lists.voices, lists.faces)
    )
    rows = np.concatenate(ceiling_vectors(voices, faces))
    return {entry.path: row for entry, row in zip((*lists.voices, *lists.faces), rows, strict=True)}


def ceiling_figures(lists: Lists, vectors: _ByPath) -> dict[str, Any]:
    """What the likelihood ratio reaches on the lists, shaped as the report of a model is.

    Args:
        lists: what is asked.
        vectors: by path, as :func:`list_vectors` gives them.
    """
    verification = {kind: _verify(lists.verification[kind], vectors) for kind in KINDS}
    return {
        "score": "log-likelihood ratio of one person against two, of each sample's own noisy shared latents",
        "noise": {str(modality): NOISE[modality] for modality in Modality},
        "retrieval": {_ANSWERS[modality]: _retrieve(lists, vectors, modality) for modality in _ANSWERS},
        "verification": {**verification[UNRESTRICTED], "same_sex": verification[SAME_SEX]},
        "matching_1_to_n": {
            _ANSWERS[modality]: {_TRIAL_KINDS[kind]: _match(lists.matching[modality, kind], vectors) for kind in KINDS}
            for modality in _ANSWERS
        },
    }


def _retrieve(lists: Lists, vectors: _ByPath, modality: Modality) -> dict[str, float | int]:
    entries = {Modality.VOICE: lists.voices, Modality.FACE: lists.faces}
    probes, gallery = entries[modality], entries[modality.other]
    people = [np.array([entry.identity for entry in one]) for one in (probes, gallery)]
    scores = np.array([vectors[one.path] for one in probes]) @ np.array([vectors[one.path] for one in gallery]).T
    relevant = people[0][:, None] == people[1][None, :]
    chances = [metrics.chance_average_precision(int(count), len(gallery)) for count in relevant.sum(1)]
    return {
        "map": metrics.mean_average_precision(scores, relevant),
        "chance": float(np.mean(chances)),
        "gallery": len(gallery),
        "probes": len(probes),
        "people": len(set(people[0].tolist())),
    }


def _verify(pairs: tuple[Pair, ...], vectors: _ByPath) -> dict[str, float | int]:
    scores = np.array([vectors[pair.voice.path] @ vectors[pair.face.path] for pair in pairs])
    genuine = np.array([pair.genuine for pair in pairs])
    return {
        "auc": metrics.auc(scores[genuine], scores[~genuine]),
        "eer": metrics.equal_error_rate(scores[genuine], scores[~genuine]),
        "pairs": len(pairs),
    }


def _match(trials: tuple[Trial, ...], vectors: _ByPath) -> dict[str, dict[str, float]]:
    scores = np.array([[vectors[one.path] @ vectors[trial.probe.path] for one in trial.candidates] for trial in trials])
    return {
        str(count): {"accuracy": metrics.matching_accuracy(scores[:, 0], scores[:, 1:count]), "chance": 1 / count}
        for count in range(2, scores.shape[1] + 1)
    }


def _split(latents: ArrayLike, what: str, noise: float) -> tuple[_Vectors, _Vectors]:
    """(n,) sexes, and (n, 5) continuous latents brought to unit variance."""
    values = np.asarray(latents, np.float64)
    if values.ndim != 2 or values.shape[1] != 6 or not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite (n, 6) latents, got shape {values.shape}")
    if not np.isin(values[:, 0], (-1.0, 1.0)).all():
        raise ValueError(f"{what}: the first latent is the sex, -1 or 1")
    return values[:, 0], values[:, 1:] / np.sqrt(1 + noise**2)


def _missing_length(vectors: _Vectors) -> _Vectors:
    """(n,) component that makes each vector as long as the longest."""
    squares = (vectors**2).sum(1)
    missing: _Vectors = np.sqrt(squares.max(initial=0.0) - squares)
    return missing
