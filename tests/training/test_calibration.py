from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.space import Modality
from search.scores import calibration_for, equal_error_threshold, fit_calibration
from training.calibration import PAIR, People, calibrate

ACROSS = (Modality.FACE, Modality.VOICE)


def people(noise: float, count: int = 12, samples: int = 4) -> People:
    """Everybody has a direction; each sample adds noise."""
    random = np.random.default_rng(2)
    centres, owners = random.normal(size=(count, 8)), np.repeat(np.arange(count), samples)
    vectors = {
        one: (centres[owners] + noise * random.normal(size=(len(owners), 8))).astype(np.float32) for one in ACROSS
    }
    return People(vectors, dict.fromkeys(ACROSS, owners))


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_verify_is_set_on_all_pairs_of_a_face_and_a_voice() -> None:
    points = people(noise=1.0)
    stored = calibrate(points)["verify"]["cosine"]
    assert (stored["set"]["genuine_pairs"], stored["set"]["impostor_pairs"]) == (12 * 4 * 4, 12 * 11 * 4 * 4)
    scores = unit(points.vectors[ACROSS[0]]) @ unit(points.vectors[ACROSS[1]]).T
    same = points.people[ACROSS[0]][:, None] == points.people[ACROSS[1]][None, :]
    assert np.mean(scores[same] < stored["threshold"]) == pytest.approx(stored["set"]["genuine_missed"], abs=0.01)
    assert stored["set"]["genuine_missed"] == pytest.approx(stored["set"]["impostor_accepted"], abs=0.02)
    assert stored["set"]["eer"] == pytest.approx(stored["set"]["genuine_missed"], abs=0.02)


def test_identify_asks_a_sample_of_everybodys_mean_of_the_other_modality() -> None:
    points = people(noise=1.0)
    stored = calibrate(points)["identify"]["cosine"]
    named, first, unknown, asked = 0, 0, 0, 0
    own, others, strangers = [], [], []
    for probe, other in (ACROSS, ACROSS[::-1]):
        means = [unit(unit(points.vectors[other][points.people[other] == name]).mean(axis=0)) for name in range(12)]
        for vector, owner in zip(unit(points.vectors[probe]), points.people[probe], strict=True):
            scores = np.array([vector @ mean for mean in means])
            own.append(scores[owner])
            others += np.delete(scores, owner).tolist()
            strangers.append(best_other := np.delete(scores, owner).max())
            asked, first = asked + 1, first + (scores[owner] > best_other)
            named += scores[owner] > best_other and scores[owner] >= stored["threshold"]
            unknown += best_other < stored["threshold"]
    told = stored["set"]
    assert told["asked"] == asked and told["known_first"] == pytest.approx(first / asked)
    assert told["known_named"] == pytest.approx(named / asked, abs=0.02)
    assert told["strangers_unknown"] == pytest.approx(unknown / asked, abs=0.02)
    threshold = equal_error_threshold(np.array(own), np.array(strangers))
    fitted = fit_calibration(np.array(own), np.array(others), threshold)
    assert (stored["threshold"], stored["slope"]) == pytest.approx((fitted.threshold, fitted.slope), abs=1e-3)


def test_a_space_that_tells_more_gets_steeper_odds() -> None:
    sharp, blurred = calibrate(people(noise=0.3)), calibrate(people(noise=2.0))
    for purpose in ("verify", "identify"):
        assert sharp[purpose]["cosine"]["slope"] > 2 * blurred[purpose]["cosine"]["slope"]


def test_a_space_that_tells_nothing_can_be_calibrated_all_the_same() -> None:
    points = people(noise=1.0)
    constant = People({one: np.ones_like(points.vectors[one]) for one in ACROSS}, points.people)
    fitted = calibration_for({PAIR: calibrate(constant)}, ACROSS, "verify", "cosine", space="shared")  # type: ignore[arg-type]
    assert fitted.probability(1.0) == pytest.approx(0.5, abs=0.01)


def test_the_threshold_for_other_galleries_names_strangers_as_often() -> None:
    stored = calibrate(people(noise=1.0))
    fitted = calibration_for({PAIR: stored}, ACROSS, "identify", "cosine", space="shared")  # type: ignore[arg-type]
    assert fitted.gallery is not None
    assert fitted.gallery.level == pytest.approx(1 - stored["identify"]["cosine"]["set"]["strangers_unknown"])
    # eleven others are what a stranger was asked of when the threshold was set
    assert fitted.among(11).threshold == pytest.approx(fitted.threshold, abs=0.1)
    assert fitted.among(1).threshold < fitted.among(11).threshold < fitted.among(1000).threshold < 1


def test_a_space_that_tells_nothing_has_no_threshold_for_other_galleries() -> None:
    points = people(noise=1.0)
    constant = People({one: np.ones_like(points.vectors[one]) for one in ACROSS}, points.people)
    assert "gallery" not in calibrate(constant)["identify"]["cosine"]


def test_people_of_one_modality_only_are_refused() -> None:
    points = people(noise=1.0)
    with pytest.raises(ValueError, match="12 with faces and 1 with voices"):
        People(points.vectors, {**points.people, Modality.VOICE: np.zeros(48, dtype=np.int64)})
