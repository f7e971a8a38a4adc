"""The losses against loops written straight from the paper's formulas, values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from training.losses import TRIPLET_FORMS, bi_quintuple, identity_loss, mining_groups


def value(scalar: Tensor) -> float:
    return float(scalar.detach())


def distance(one: Tensor, other: Tensor) -> Tensor:
    squares = sum((one[place] - other[place]) ** 2 for place in range(len(one)))
    return torch.sqrt(squares) if value(squares) > 0 else squares  # at 0 the gradient is taken to be 0


def slowly(
    faces: Tensor, face_people: list[int], voices: Tensor, voice_people: list[int], margin: float
) -> dict[str, Tensor]:
    """Equations 6 to 17, one sample at a time."""
    samples = [("face", vector / vector.norm(), person) for vector, person in zip(faces, face_people, strict=True)]
    samples += [("voice", vector / vector.norm(), person) for vector, person in zip(voices, voice_people, strict=True)]
    hinges: dict[str, list[Tensor]] = {
        f"{loss}_{anchor}": [] for loss in ("cth", "mth") for anchor in ("face", "voice")
    }
    counts = dict.fromkeys(TRIPLET_FORMS, 0)
    for place, (modality, anchor, person) in enumerate(samples):
        for loss in ("cth", "mth"):
            others = [
                (other_modality, distance(anchor, other), other_person)
                for other_place, (other_modality, other, other_person) in enumerate(samples)
                if other_place != place and (loss == "mth" or other_modality != modality)
            ]
            others.sort(key=lambda one: one[0] != modality)  # the anchor's modality first: ties go to the first
            positives = [one for one in others if one[2] == person]
            negatives = [one for one in others if one[2] != person]
            if not positives or not negatives:
                continue
            farthest = max(positives, key=lambda one: value(one[1]))
            nearest = min(negatives, key=lambda one: value(one[1]))
            excess = farthest[1] - nearest[1] + margin
            hinges[f"{loss}_{modality}"].append(excess if value(excess) > 0 else torch.zeros((), dtype=faces.dtype))
            if loss == "mth" and value(farthest[1]) > value(nearest[1]):
                form = "_".join("same" if one[0] == modality else "cross" for one in (farthest, nearest))
                counts[form] += 1
    terms = {name: torch.stack(some).mean() if some else faces.new_zeros(()) for name, some in hinges.items()}
    loss = torch.stack(list(terms.values())).sum()
    return {"bi_quintuple": loss} | terms | {f"triplets_{form}": torch.tensor(n) for form, n in counts.items()}


def compare(
    faces: Tensor, face_people: list[int], voices: Tensor, voice_people: list[int], margin: float = 0.6
) -> None:
    answers = []
    for function, people in ((slowly, list), (bi_quintuple, torch.tensor)):
        inputs = [one.clone().double().requires_grad_() for one in (faces, voices)]
        terms = function(inputs[0], people(face_people), inputs[1], people(voice_people), margin)
        gradients = [torch.zeros_like(one) for one in inputs]
        if terms["bi_quintuple"].requires_grad:
            terms["bi_quintuple"].backward()
            gradients = [zero if one.grad is None else one.grad for one, zero in zip(inputs, gradients, strict=True)]
        answers.append((terms, gradients))
    (naive, naive_gradients), (fast, fast_gradients) = answers
    assert naive.keys() == fast.keys()
    for name, term in naive.items():
        torch.testing.assert_close(fast[name].to(term.dtype), term, atol=1e-12, rtol=1e-12, msg=name)
    for ours, theirs in zip(fast_gradients, naive_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-9)


def vectors(count: int, seed: int, dimension: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dimension)))


def test_a_batch_as_published_gives_what_the_formulas_say() -> None:
    people = [person for person in range(5) for _ in range(3)]
    compare(vectors(15, 0), people, vectors(15, 1), people)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    face_people=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    voice_people=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    margin=st.sampled_from([0.0, 0.3, 0.6, 2.0]),
    seed=st.integers(0, 2**20),
)
def test_any_batch_gives_what_the_formulas_say(face_people, voice_people, margin, seed) -> None:
    compare(vectors(len(face_people), seed), face_people, vectors(len(voice_people), seed + 1), voice_people, margin)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    people=st.lists(st.integers(0, 2), min_size=8, max_size=8),
)
def test_ties_and_samples_at_one_point_give_what_the_formulas_say(places, people) -> None:
    # Three points, axis-parallel so that equal distances are equal to the last bit.
    points = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[places]
    compare(points[:4], people[:4], points[4:], people[4:])


@pytest.mark.parametrize(
    ("face_people", "voice_people"),
    [
        ([0], [0]),  # nobody else: no negatives
        ([0], [1]),  # no positives
        ([0, 1], [0, 1]),  # one sample each: the mixed positive is the cross-modal one
        ([0, 1], [2, 3]),
        ([0, 0, 1], [2]),  # faces have no voices and the voice has no face
        ([0, 0, 0, 1], [0, 1, 1, 2]),
    ],
)
def test_people_with_few_samples_give_what_the_formulas_say(face_people, voice_people) -> None:
    compare(vectors(len(face_people), 2), face_people, vectors(len(voice_people), 3), voice_people)


def test_one_triplet_by_hand() -> None:
    faces, voices = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0], [-5.0, 0.0]])
    terms = bi_quintuple(faces, torch.tensor([0]), voices, torch.tensor([0, 1]), margin=0.6)
    # The face: positive at √2, negative at 2. The first voice: positive at √2, mixed negative at √2. The other: none.
    assert terms["cth_face"].item() == pytest.approx(max(0.0, math.sqrt(2) - 2 + 0.6))
    assert terms["mth_voice"].item() == pytest.approx(0.6)
    assert terms["cth_voice"].item() == 0.0


def test_each_form_of_mixed_triplet_is_counted_by_its_name() -> None:
    def at(*degrees: float) -> Tensor:
        return torch.tensor([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees])

    # Faces of person 0 at 0° and 10°, their voice at 120°; person 1 has one voice at 60°: for both faces the
    # farthest positive is the voice, the nearest negative is a voice.
    terms = bi_quintuple(at(0, 10), torch.tensor([0, 0]), at(120, 60), torch.tensor([0, 1]), margin=0.6)
    assert terms["triplets_cross_cross"] == 2
    # For the voice at 120° the farthest positive is a face, the nearest negative a voice.
    assert terms["triplets_cross_same"] == 1
    assert terms["triplets_same_cross"] == terms["triplets_same_same"] == 0


def test_a_triplet_whose_positive_is_nearer_is_not_counted() -> None:
    corners = torch.eye(2)
    people = torch.tensor([0, 1])
    terms = bi_quintuple(corners, people, corners, people, margin=0.6)
    assert sum(terms[f"triplets_{form}"].item() for form in TRIPLET_FORMS) == 0
    assert terms["bi_quintuple"] == 0


def test_samples_at_one_point_have_finite_gradients() -> None:
    faces, voices = torch.ones(4, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    people = torch.tensor([0, 0, 1, 1])
    terms = bi_quintuple(faces, people, voices, people, margin=0.6)
    terms["bi_quintuple"].backward()
    assert terms["bi_quintuple"].item() == pytest.approx(4 * 0.6)
    assert torch.isfinite(faces.grad).all() and torch.isfinite(voices.grad).all()


def test_lengths_of_embeddings_do_not_matter_to_the_triplets() -> None:
    people = torch.arange(6) // 2
    faces, voices = vectors(6, 4), vectors(6, 5)
    one = bi_quintuple(faces, people, voices, people, 0.6)["bi_quintuple"]
    other = bi_quintuple(faces * 7, people, voices * 0.1, people, 0.6)["bi_quintuple"]
    torch.testing.assert_close(one, other)


def test_faces_and_voices_have_the_same_part_in_the_loss() -> None:
    people = torch.arange(6) // 2
    faces, voices = vectors(6, 6), vectors(6, 7)
    one, other = (bi_quintuple(a, people, b, people, 0.6) for a, b in ((faces, voices), (voices, faces)))
    torch.testing.assert_close(one["bi_quintuple"], other["bi_quintuple"])
    torch.testing.assert_close(one["mth_face"], other["mth_voice"])


def test_a_batch_without_voices_is_refused() -> None:
    with pytest.raises(ValueError, match="needs faces and voices, got 2 and 0"):
        bi_quintuple(vectors(2, 0), torch.tensor([0, 1]), vectors(0, 0), torch.tensor([]), 0.6)


def test_the_identity_loss_is_the_mean_over_faces_plus_the_mean_over_voices() -> None:
    classifier = torch.nn.Linear(5, 3).double()
    faces, voices = vectors(4, 8), vectors(2, 9)
    face_people, voice_people = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0])

    def slow(samples: Tensor, people: Tensor) -> Tensor:
        scores = samples @ classifier.weight.T + classifier.bias
        return sum(-torch.log(row.exp()[person] / row.exp().sum()) for row, person in zip(scores, people, strict=True))

    terms = identity_loss(classifier, faces, face_people, voices, voice_people)
    torch.testing.assert_close(terms["identity"], slow(faces, face_people) / 4 + slow(voices, voice_people) / 2)
    named = (classifier(faces).argmax(1) == face_people).double().mean().item()
    assert terms["face_accuracy"].item() == pytest.approx(named)


def test_mined_among_groups_it_is_the_mean_of_the_groups_and_counts_are_sums() -> None:
    random = torch.Generator().manual_seed(3)
    faces, voices = torch.randn(2, 12, 5, generator=random, dtype=torch.float64)
    people = torch.arange(6).repeat_interleave(2)
    mined = bi_quintuple(faces, people, voices, people, 0.6, groups=3)
    parts = [
        slowly(faces[rows], people[rows].tolist(), voices[rows], people[rows].tolist(), 0.6)
        for rows in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    for name in mined:
        total = sum(value(part[name]) for part in parts)
        assert value(mined[name]) == pytest.approx(total if name.startswith("triplets_") else total / 3)


def test_a_group_has_all_samples_of_its_people_so_that_there_is_something_to_mine() -> None:
    groups = mining_groups(8, 2, 2)
    assert (groups, mining_groups(8, None, 2), mining_groups(8, 2, 1), mining_groups(8, 6, 2)) == (2, 1, 4, 1)
    people = torch.arange(4).repeat_interleave(2)
    assert value(bi_quintuple(vectors(8, 10), people, vectors(8, 11), people, 0.6, groups)["bi_quintuple"]) > 0


def test_groups_that_do_not_divide_the_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be divided into 3 groups"):
        bi_quintuple(torch.ones(4, 2), torch.zeros(4), torch.ones(4, 2), torch.zeros(4), 0.6, groups=3)
