"""From cross-modal scores of validation people to probabilities: what ``calibration.json`` of a model holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.probe_centres import ProbeCentres, without_centre
from encoders.space import Modality
from search import metrics
from search.gallery import Gallery, NoTail, Tail
from search.scores import (
    Calibration,
    Purpose,
    Similarity,
    equal_error_threshold,
    fit_calibration,
    similarity_matrix,
)

PAIR = f"{Modality.FACE}-{Modality.VOICE}"
RULES = {
    Purpose.VERIFY: "as many genuine face-voice pairs are missed as impostor pairs are accepted (equal error)",
    Purpose.IDENTIFY: "a sample is asked of every person's mean in the other modality: a known person is missed as "
    "often as a stranger is named; `gallery` names strangers as often however many people are enrolled",
    Purpose.FIND: "as to verify, with the centre of its modality taken from the probe",
}
# A space that tells little names nearly every stranger, or none: no threshold for another gallery follows from that.
LEAST_LEVEL, MOST_LEVEL = 0.001, 0.5


@dataclass(frozen=True, eq=False)
class People:
    """Points of people who are no part of training, by modality.

    Args:
        vectors: (samples, dimension) floats of any length but 0.
        people: (samples,) who each shows, by number; everybody is in both modalities.
    """

    vectors: Mapping[Modality, NDArray[np.floating]]
    people: Mapping[Modality, NDArray[np.int64]]

    def __post_init__(self) -> None:
        numbers = [set(self.people[modality].tolist()) for modality in Modality]
        if numbers[0] != numbers[1] or len(numbers[0]) < 2:
            raise ValueError(
                f"a calibration needs at least two people, all with faces and voices; got {len(numbers[0])} with faces "
                f"and {len(numbers[1])} with voices"
            )


def calibrate(points: People) -> dict[str, Any]:
    """Numbers for every purpose and similarity, as ``calibration.json`` keeps them under ``face-voice``."""
    numbers: dict[str, Any] = {str(purpose): {} for purpose in (Purpose.VERIFY, Purpose.IDENTIFY)}
    for kind in Similarity:
        numbers[Purpose.VERIFY][str(kind)] = _of_pairs(*_pairs(points, kind))
        own, others, strangers = _trials(points, kind)
        identify = fit_calibration(own, others, equal_error_threshold(own, strangers))
        numbers[Purpose.IDENTIFY][str(kind)] = _told(identify) | {
            "set": {
                "asked": len(own),
                "known_named": float(np.mean((own >= identify.threshold) & (own > strangers))),
                "known_first": float(np.mean(own > strangers)),
                "strangers_unknown": float(np.mean(strangers < identify.threshold)),
            }
        }
        if kind is Similarity.COSINE:
            numbers[Purpose.IDENTIFY][str(kind)] |= _gallery(others, float(np.mean(strangers >= identify.threshold)))
    return numbers


def calibrate_asking(points: People, centres: ProbeCentres) -> dict[str, Any]:
    """Numbers for probes without their centre, as ``calibration.json`` keeps them: by ``face-to-voice`` or the like."""
    numbers = {}
    for probe, centre in centres.items():
        unit = {modality: unit_length(vectors) for modality, vectors in points.vectors.items()}
        asking = People(unit | {probe: without_centre(unit[probe], centre)}, points.people)
        found = _of_pairs(*_pairs(asking, Similarity.COSINE))
        numbers[f"{probe}-to-{probe.other}"] = {str(Purpose.FIND): {str(Similarity.COSINE): found}}
    return numbers


def _of_pairs(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> dict[str, Any]:
    """What pairs of one person and of two come to: threshold, slope, and how they do on the pairs that set them."""
    fitted = fit_calibration(genuine, impostor, equal_error_threshold(genuine, impostor))
    return _told(fitted) | {
        "set": {
            "genuine_pairs": len(genuine),
            "impostor_pairs": len(impostor),
            "genuine_missed": float(np.mean(genuine < fitted.threshold)),
            "impostor_accepted": float(np.mean(impostor >= fitted.threshold)),
            "auc": metrics.auc(genuine, impostor),
            "eer": metrics.equal_error_rate(genuine, impostor),
        }
    }


def _gallery(others: NDArray[np.float64], level: float) -> dict[str, Any]:
    """What holds the share of strangers who are named, whoever is enrolled; nothing where no tail can be fitted."""
    try:
        tail = Tail.fit(others)
    except NoTail:
        return {}
    return {"gallery": Gallery(min(MOST_LEVEL, max(LEAST_LEVEL, level)), tail).to_json()}


def _pairs(points: People, kind: Similarity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of all pairs of a face and a voice: of one person, and of two."""
    faces, voices = (unit_length(points.vectors[modality]) for modality in (Modality.FACE, Modality.VOICE))
    scores = similarity_matrix(faces, voices, kind)
    same = points.people[Modality.FACE][:, None] == points.people[Modality.VOICE][None, :]
    return scores[same], scores[~same]


def _trials(points: People, kind: Similarity) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Every sample asked of everybody's mean in the other modality, faces of voices and voices of faces.

    Returns:
        (n,) scores against the own person; scores against all others, flat; (n,) the best of those others,
        which is what a sample of somebody who is not enrolled would reach.
    """
    own, others, strangers = [], [], []
    for probe, other in ((Modality.FACE, Modality.VOICE), (Modality.VOICE, Modality.FACE)):
        names = np.unique(points.people[other])
        samples = unit_length(points.vectors[other])
        means = unit_length(np.stack([samples[points.people[other] == name].mean(axis=0) for name in names]))
        scores = similarity_matrix(unit_length(points.vectors[probe]), means, kind)  # (samples, people)
        mine = points.people[probe][:, None] == names[None, :]
        own.append(scores[mine])
        others.append(scores[~mine])
        strangers.append(np.where(mine, -np.inf, scores).max(axis=1))
    return np.concatenate(own), np.concatenate(others), np.concatenate(strangers)


def unit_length(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """(n, dimension) vectors of length 1, in double precision."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def _told(fitted: Calibration) -> dict[str, float]:
    return {"threshold": round(fitted.threshold, 4), "slope": round(fitted.slope, 3)}
