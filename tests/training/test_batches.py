"""The order of samples and their variation: balanced, complete, and the same whenever they are asked for."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from encoders.backbones.small_face import chips_to_input
from training.batches import (
    NO_AUGMENTATION,
    Augmentation,
    batch_plan,
    make_batch,
    make_batches,
    vary_faces,
    vary_voices,
)
from training.prepared import Prepared
from training.vectors import Vectors

SIDE, BANDS = 16, 8


VARIED = Augmentation(frames=20)


@dataclass(frozen=True)
class Order:
    people_per_batch: int = 4
    samples_per_person: int = 2
    steps_per_epoch: int | None = None
    augmentation: Augmentation = VARIED


def invented(people: int = 9, faces: int = 5, voices: int = 4, seed: int = 0) -> Prepared:
    """Chips of noise; every frame of voice i holds i in band 0 and its own number in band 1."""
    random = np.random.default_rng(seed)
    lengths = random.integers(10, 60, people * voices)
    mels = random.random((lengths.sum(), BANDS)).astype(np.float16)
    mels[:, 0] = np.repeat(np.arange(len(lengths)), lengths)
    mels[:, 1] = np.concatenate([np.arange(length) for length in lengths])
    return Prepared(
        identities=tuple(f"Person_{number:03d}" for number in range(people)),
        sexes=tuple("fm"[number % 2] for number in range(people)),
        faces=random.integers(0, 256, (people * faces, SIDE, SIDE, 3), dtype=np.uint8),
        face_people=np.repeat(np.arange(people), faces),
        mels=mels,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        voice_people=np.repeat(np.arange(people), voices),
    )


orders = st.builds(
    Order,
    people_per_batch=st.integers(2, 6),
    samples_per_person=st.integers(1, 7),
    steps_per_epoch=st.one_of(st.none(), st.integers(1, 12)),
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(order=orders, people=st.integers(6, 13), seed=st.integers(0, 2**40), epochs=st.integers(1, 4))
def test_everybody_occurs_equally_often_and_never_twice_in_a_batch(order, people, seed, epochs) -> None:
    prepared, counts = invented(people), Counter()
    for epoch in range(epochs):
        plan = batch_plan(prepared, order, seed, epoch)
        assert all(len(set(row)) == order.people_per_batch for row in plan.people.tolist())
        counts.update(plan.people.ravel().tolist())
    times = [counts[person] for person in range(people)]
    assert max(times) - min(times) <= 1


def vectors_of(kin: list[int] | None, samples: int = 6) -> Vectors:
    people = 12
    owners = np.repeat(np.arange(people), samples)
    points = np.random.default_rng(0).random((2, len(owners), 3), dtype=np.float32)
    names, numbers = tuple(f"Person_{number:03d}" for number in range(people)), None if kin is None else np.array(kin)
    return Vectors(names, ("",) * people, points[0], owners, points[1], owners, kin=numbers)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    order=orders,
    kin=st.lists(st.integers(0, 20), min_size=12, max_size=12).filter(lambda one: len(set(one)) >= 6),
    seed=st.integers(0, 2**40),
)
def test_people_who_possibly_are_one_never_meet_and_come_as_often_as_one(order, kin, seed) -> None:
    some, counts = vectors_of(kin), Counter()
    for epoch in range(3):
        plan = batch_plan(some, order, seed, epoch)
        for row in plan.people.tolist():
            assert len({kin[person] for person in row}) == order.people_per_batch
        assert (some.face_people[plan.faces] == plan.people[:, :, None]).all()
        counts.update(plan.people.ravel().tolist())
    together = [sum(counts[person] for person in range(12) if kin[person] == one) for one in set(kin)]
    assert max(together) - min(together) <= 1
    for one in set(kin):
        turns = [counts[person] for person in range(12) if kin[person] == one]
        assert max(turns) - min(turns) <= 1


def test_a_person_s_samples_are_all_seen_when_they_take_turns_with_another() -> None:
    some, order = vectors_of([0, 0, *range(1, 11)]), Order(samples_per_person=2)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for epoch in range(8):
        plan = batch_plan(some, order, 5, epoch)
        for person, faces in zip(plan.people.ravel().tolist(), plan.faces.reshape(-1, 2).tolist(), strict=True):
            if person in seen:
                seen[person] += faces
    for faces in seen.values():
        assert len(faces) >= 6 and len(set(faces[:6])) == 6


def test_people_who_surely_are_different_are_ordered_as_where_nobody_says_so() -> None:
    order = Order(steps_per_epoch=5)
    told, unsaid = (batch_plan(vectors_of(kin), order, 3, 1) for kin in (list(range(12)), None))
    assert np.array_equal(told.people, unsaid.people) and np.array_equal(told.voices, unsaid.voices)


def test_a_batch_holds_no_more_than_are_surely_different() -> None:
    with pytest.raises(ValueError, match=r"a batch of 4 people .* no more than there are \(3\)"):
        batch_plan(vectors_of([0, 1, 2] * 4), Order(), 0, 0)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    order=orders,
    sizes=st.lists(st.integers(1, 9), min_size=6, max_size=10),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 50),
)
def test_people_with_more_and_fewer_samples_each_get_their_own(order, sizes, seed, epoch) -> None:
    random = np.random.default_rng(len(sizes))
    owners = [random.permutation(np.repeat(np.arange(len(sizes)), some)) for some in (sizes, sizes[::-1])]
    points = [random.random((len(some), 3), dtype=np.float32) for some in owners]
    names = tuple(f"{number:03d}" for number in range(len(sizes)))
    some = Vectors(names, ("",) * len(names), points[0], owners[0], points[1], owners[1])
    plan = batch_plan(some, order, seed, epoch)
    for chosen, whose, counts in ((plan.faces, owners[0], sizes), (plan.voices, owners[1], sizes[::-1])):
        assert (whose[chosen] == plan.people[:, :, None]).all()
        for person, drawn in zip(plan.people.ravel().tolist(), chosen.reshape(-1, chosen.shape[-1]), strict=True):
            assert len(set(drawn.tolist())) == min(order.samples_per_person, counts[person])


def test_every_vector_comes_with_its_own_weight() -> None:
    owners, random = np.repeat(np.arange(6), 3), np.random.default_rng(0)
    points, weights = random.random((2, 18, 3), dtype=np.float32), random.random((2, 18), dtype=np.float32)
    names = tuple("abcdef")
    some = Vectors(names, ("",) * 6, points[0], owners, points[1], owners, "", weights[0], weights[1])
    batch = make_batch(some, batch_plan(some, Order(4, 2), 0, 0), 0)
    both = (batch.faces, batch.face_weights), (batch.voices, batch.voice_weights)
    for (samples, weighed), own, told in zip(both, points, weights, strict=True):
        rows = [int(np.flatnonzero((own == one).all(axis=1))[0]) for one in samples.numpy()]
        assert weighed is not None and len(rows) == 8 and weighed.tolist() == told[rows].tolist()


@hypothesis_settings(max_examples=40, deadline=None)
@given(order=orders, seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_samples_are_those_of_their_person_and_differ_while_there_are_enough(order, seed, epoch) -> None:
    prepared = invented()
    plan = batch_plan(prepared, order, seed, epoch)
    for chosen, owners, available in ((plan.faces, prepared.face_people, 5), (plan.voices, prepared.voice_people, 4)):
        assert (owners[chosen] == plan.people[:, :, None]).all()
        different = min(order.samples_per_person, available)
        assert all(len(set(one)) == different for batch in chosen.tolist() for one in batch)


@hypothesis_settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), steps=st.integers(2, 9))
def test_a_person_s_samples_are_all_seen_before_one_comes_again(seed, steps) -> None:
    prepared, order = invented(faces=6, voices=4), Order(samples_per_person=2, steps_per_epoch=steps)
    seen: dict[int, list[int]] = {person: [] for person in range(9)}
    for epoch in range(8):
        plan = batch_plan(prepared, order, seed, epoch)
        for person, faces in zip(plan.people.ravel().tolist(), plan.faces.reshape(-1, 2).tolist(), strict=True):
            seen[person] += faces
    rounds = [faces[at : at + 6] for faces in seen.values() for at in range(0, len(faces) - 5, 6)]
    assert rounds and all(len(set(one)) == 6 for one in rounds)


def test_an_epoch_shows_every_sample_about_once() -> None:
    plan = batch_plan(invented(people=20, faces=6, voices=6), Order(people_per_batch=4, samples_per_person=2), 0, 0)
    assert len(plan) == 15
    assert sorted(plan.faces.ravel().tolist()) == list(range(120))


def same(one, other) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("faces", "face_people", "voices", "voice_people")
    )


@hypothesis_settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 3), start=st.integers(0, 4), between=st.integers(0, 99))
def test_a_resumed_run_sees_the_batches_it_would_have_seen(seed, epoch, start, between) -> None:
    prepared, order = invented(), Order(steps_per_epoch=5)
    plan = batch_plan(prepared, order, seed, epoch)
    whole = [make_batch(prepared, plan, number) for number in range(5)]
    torch.manual_seed(between)
    np.random.default_rng(between).random(between)
    batch_plan(prepared, order, seed + 1, epoch + between)
    again = batch_plan(prepared, order, seed, epoch)
    assert all(same(make_batch(prepared, again, number), whole[number]) for number in range(start, 5))


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_one_after_the_other_are_those_of_the_plan(ahead: bool) -> None:
    prepared = invented()
    plan = batch_plan(prepared, Order(steps_per_epoch=5), 0, 0)
    made = list(make_batches(prepared, plan, 2, ahead=ahead))
    assert len(made) == 3 and all(
        same(one, make_batch(prepared, plan, number)) for number, one in enumerate(made, start=2)
    )


@pytest.mark.parametrize(("ahead", "made_by"), [(False, ["MainThread"]), (True, ["batch_0", "batch_0"])])
def test_nothing_is_made_that_nobody_may_want_but_for_the_next_batch_and_its_thread_ends(
    ahead: bool, made_by: list[str], monkeypatch
) -> None:
    makers: list[str] = []

    def noted(*arguments):
        makers.append(threading.current_thread().name)
        return make_batch(*arguments)

    monkeypatch.setattr("training.batches.make_batch", noted)
    prepared = invented()
    wanted = make_batches(prepared, batch_plan(prepared, Order(steps_per_epoch=5), 0, 0), ahead=ahead)
    next(wanted)
    wanted.close()
    assert makers == made_by
    assert not [one for one in threading.enumerate() if one.name.startswith("batch")]


@pytest.mark.parametrize(("seed", "epoch", "number"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_the_same_samples_are_varied_anew_in_every_batch_epoch_and_run(seed, epoch, number) -> None:
    prepared = invented()
    plan = batch_plan(prepared, Order(steps_per_epoch=1), 0, 0)
    again = {name: np.repeat(getattr(plan, name), 2, axis=0) for name in ("people", "faces", "voices")}
    one = make_batch(prepared, plan, 0)
    other = make_batch(prepared, replace(plan, seed=seed, epoch=epoch, **again), number)
    assert torch.equal(one.face_people, other.face_people)
    assert not torch.equal(one.faces, other.faces) and not torch.equal(one.voices, other.voices)


def test_another_seed_or_epoch_is_another_order_of_people_and_of_their_samples() -> None:
    def chosen(seed: int, epoch: int) -> tuple[list[int], list[list[int]], list[list[int]]]:
        plan = batch_plan(invented(), Order(people_per_batch=9, steps_per_epoch=1), seed, epoch)
        order = plan.people[0].argsort()
        return plan.people[0].tolist(), plan.faces[0][order].tolist(), plan.voices[0][order].tolist()

    for one, other, third in zip(chosen(0, 0), chosen(1, 0), chosen(0, 2), strict=True):
        assert one != other and one != third


def test_every_sample_comes_first_equally_often_whatever_comes_second() -> None:
    some, order = vectors_of(None, samples=4), Order(people_per_batch=12, samples_per_person=4, steps_per_epoch=1200)
    plan = batch_plan(some, order, 1, 0)
    in_order = [plan.faces[plan.people == person] % 4 for person in range(12)]
    orders = Counter(tuple(row) for rows in in_order for row in rows.tolist())
    assert len(orders) == 24  # of 14,400 shuffles each order 600 times, with a deviation of 24
    assert all(abs(count - 600) < 6 * 24 for count in orders.values())
    assert len({rows.tobytes() for rows in in_order}) == 12


def test_people_s_samples_are_shuffled_independently() -> None:
    plan = batch_plan(invented(faces=5, voices=5), Order(people_per_batch=9, steps_per_epoch=1), 0, 0)
    for numbers in (plan.faces[0] % 5, plan.voices[0] % 5):
        assert len({tuple(one) for one in numbers.tolist()}) > 4
    assert (plan.faces % 5 != plan.voices % 5).any()


def test_a_batch_holds_the_planned_samples_with_their_people() -> None:
    prepared, order = invented(), Order(augmentation=replace(NO_AUGMENTATION, frames=20))
    plan = batch_plan(prepared, order, 0, 0)
    batch = make_batch(prepared, plan, 1)
    assert batch.faces.shape == (8, 3, SIDE, SIDE) and batch.voices.shape == (8, 20, BANDS)
    assert batch.face_people.tolist() == batch.voice_people.tolist() == np.repeat(plan.people[1], 2).tolist()
    expected = chips_to_input(torch.from_numpy(prepared.faces[plan.faces[1].ravel()]))
    torch.testing.assert_close(batch.faces, expected, atol=1e-5, rtol=0)
    assert batch.voices[:, 0, 0].tolist() == plan.voices[1].ravel().tolist()
    assert batch.voice_lengths is None


def test_settings_without_steps_and_augmentation_get_the_defaults() -> None:
    @dataclass(frozen=True)
    class Bare:
        people_per_batch: int = 4
        samples_per_person: int = 2

    plan = batch_plan(invented(), Bare(), 0, 0)
    assert len(plan) == 6 and plan.augmentation == Augmentation()


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (Order(people_per_batch=10), r"a batch of 10 people .* than there are \(9\)"),
        (Order(people_per_batch=1), "at least 2"),
        (Order(samples_per_person=0, steps_per_epoch=1), "samples_per_person and steps at least 1"),
    ],
)
def test_an_impossible_order_is_refused(order, told) -> None:
    with pytest.raises(ValueError, match=told):
        batch_plan(invented(), order, 0, 0)


@pytest.mark.parametrize("wrong", [{"mirror": -0.1}, {"contrast": 1.0}, {"shift": -1}, {"gain": -0.1}, {"frames": 0}])
def test_an_impossible_augmentation_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"mirror is in|no negative strength"):
        Augmentation(**wrong)


def faces_of(chips: np.ndarray, seed: int = 0, **strengths: float) -> torch.Tensor:
    """Each chip, with one kind of variation only."""
    augmentation = replace(NO_AUGMENTATION, **strengths)
    return vary_faces(chips, np.arange(len(chips)), augmentation, np.random.default_rng(seed))


def test_about_half_of_the_faces_are_mirrored_whole() -> None:
    chips = invented(people=40).faces
    plain, varied = chips_to_input(torch.from_numpy(chips)), faces_of(chips, mirror=0.5)
    mirrored = (varied - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    straight = (varied - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (mirrored ^ straight).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_a_moved_face_repeats_its_edge_and_moves_no_farther_than_asked() -> None:
    chips = invented(people=20).faces
    plain, varied = chips_to_input(torch.from_numpy(chips)), faces_of(chips, shift=2)
    padded = torch.nn.functional.pad(plain, (2, 2, 2, 2), mode="replicate")
    moves = set()
    for before, after in zip(padded, varied, strict=True):
        fits = [
            (down, across)
            for down in range(5)
            for across in range(5)
            if (before[:, down : down + SIDE, across : across + SIDE] - after).abs().max() < 1e-5
        ]
        assert len(fits) == 1
        moves |= set(fits)
    assert {down for down, _ in moves} == {across for _, across in moves} == set(range(5))


def test_brightness_moves_a_face_as_a_whole_and_colour_its_channels() -> None:
    chips = np.full((200, SIDE, SIDE, 3), 120, dtype=np.uint8)
    plain = chips_to_input(torch.from_numpy(chips))
    brighter = (faces_of(chips, brightness=0.2) - plain).flatten(1)
    assert (brighter.amax(1) - brighter.amin(1)).max() < 1e-5
    assert 0.15 < brighter.abs().max() <= 0.2 + 1e-5
    assert brighter.min() < -0.15
    tinted = (faces_of(chips, colour=0.1) - plain).mean(dim=(2, 3))
    assert 0.09 < tinted.abs().max() <= 0.1 + 1e-5
    assert (tinted.std(dim=1) > 1e-3).all()


def test_contrast_keeps_the_mean_and_scales_the_deviation() -> None:
    chips = np.random.default_rng(0).integers(80, 176, (100, SIDE, SIDE, 3), dtype=np.uint8)
    plain, varied = chips_to_input(torch.from_numpy(chips)).flatten(1), faces_of(chips, contrast=0.3).flatten(1)
    torch.testing.assert_close(varied.mean(1), plain.mean(1), atol=1e-5, rtol=0)
    factors = varied.std(1) / plain.std(1)
    assert 0.7 <= factors.min() < 0.75 and 1.25 < factors.max() <= 1.3


def test_no_variation_leaves_the_range_of_the_networks_input() -> None:
    chips = invented(people=20).faces
    varied = faces_of(chips, brightness=3.0, contrast=0.9, colour=1.0)
    ends = chips_to_input(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).flatten()
    assert varied.min() == ends[0] and varied.max() == ends[1]


def test_preparing_a_batch_leaves_the_samples_as_they_are() -> None:
    prepared = invented()
    faces, mels = prepared.faces.copy(), prepared.mels.copy()
    strong = Augmentation(brightness=1, contrast=0.5, colour=1, gain=1, masked_bands=4, frames=15)
    make_batch(prepared, batch_plan(prepared, Order(augmentation=strong), 0, 0), 0)
    assert np.array_equal(prepared.faces, faces) and np.array_equal(prepared.mels, mels)


def voices_of(prepared: Prepared, seed: int = 0, **strengths: float) -> torch.Tensor:
    chosen = np.arange(len(prepared.voice_people))
    return vary_voices(prepared, chosen, replace(NO_AUGMENTATION, **strengths), np.random.default_rng(seed))


def test_a_long_voice_gives_any_stretch_of_it_and_nothing_else() -> None:
    prepared = invented(people=60)
    lengths = np.diff(prepared.offsets)
    stretches = voices_of(prepared, frames=10)
    assert (stretches[:, :, 0] == torch.arange(240)[:, None]).all()  # not a frame of another voice
    first = stretches[:, 0, 1].numpy()
    assert (stretches[:, :, 1].numpy() == first[:, None] + np.arange(10)).all()
    assert (first + 10 <= lengths).all()


def test_a_stretch_begins_anywhere_from_the_first_frame_to_the_last_that_fits() -> None:
    prepared = invented(people=60)
    (longer,) = np.nonzero(np.diff(prepared.offsets) == 14)
    random = np.random.default_rng(0)
    stretches = vary_voices(prepared, np.repeat(longer, 200), replace(NO_AUGMENTATION, frames=10), random)
    assert set(stretches[:, 0, 1].tolist()) == {0, 1, 2, 3, 4}


def test_a_short_voice_is_repeated_from_anywhere() -> None:
    prepared = invented(people=60)
    lengths = np.diff(prepared.offsets)
    stretches = voices_of(prepared, frames=100)
    first = stretches[:, :1, 1].numpy()
    assert (stretches[:, :, 0] == torch.arange(240)[:, None]).all()
    assert (stretches[:, :, 1].numpy() == (first + np.arange(100)) % lengths[:, None]).all()
    assert len(np.unique(first)) > 10


def test_gain_moves_all_bands_of_a_voice_alike() -> None:
    prepared = invented(people=60)
    difference = (voices_of(prepared, frames=10, gain=0.5) - voices_of(prepared, frames=10)).flatten(1)
    assert (difference.amax(1) - difference.amin(1)).max() < 1e-4
    assert -0.5 <= difference.min() < -0.4 and 0.4 < difference.max() <= 0.5


def test_masked_bands_are_one_stretch_no_wider_than_asked() -> None:
    prepared = invented(people=60)
    prepared.mels[:] = 1
    blank = (voices_of(prepared, frames=10, masked_bands=3) == 0).all(dim=1).int()
    assert set(blank.sum(1).tolist()) == {0, 1, 2, 3}
    edges = torch.nn.functional.pad(blank, (1, 1)).diff(dim=1).abs().sum(1)
    assert set(edges.tolist()) == {0, 2}
    assert (blank.sum(0) > 0).all()
