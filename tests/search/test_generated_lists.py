"""Lists that are drawn: fair, seeded, kept with their digest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from search.generated_lists import TRIALS_PER_PERSON, keep_drawn, with_drawn
from search.published_lists import read_trial_lists
from search.trial_lists import SEEN, UNSEEN, TrialLists
from tests.search.small_lists import write_small_lists
from tests.search.small_protocol import write_small_protocol

VOICE, FACE = Modality.VOICE, Modality.FACE


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> TrialLists:
    return read_trial_lists(write_small_lists(tmp_path_factory.mktemp("lists")))


@pytest.fixture(scope="module")
def drawn(read: TrialLists) -> TrialLists:
    return with_drawn(read)


def test_ten_candidates_of_ten_people_are_drawn_from_the_clips_that_are_searched(drawn: TrialLists) -> None:
    assert {group for _, group in drawn.matching_1_to_n} == {"U", "G"}  # no country has ten people
    for (probe, group), trials in drawn.matching_1_to_n.items():
        own = drawn.catalogues[probe].person[trials.probes]
        shown = drawn.catalogues[probe.other].person[trials.candidates]
        assert (shown[:, 0] == own).all() and all(len(set(line)) == 10 for line in shown.tolist())
        shared = drawn.people.group(group)
        assert (shared[shown] == shared[own][:, None]).all()
        assert set(trials.probes.tolist()) <= set(drawn.retrieval[probe].tolist())
        assert set(trials.candidates.ravel().tolist()) <= set(drawn.retrieval[probe.other].tolist())
        assert set(np.bincount(own)[np.unique(own)].tolist()) == {TRIALS_PER_PERSON}


def test_the_real_lists_are_drawn_for_all_four_groups_both_ways(published_trials: TrialLists) -> None:
    trials = with_drawn(published_trials).matching_1_to_n
    sizes = {key: one.candidates.shape for key, one in trials.items()}
    for probe in (VOICE, FACE):
        assert [sizes[probe, group] for group in ("U", "G", "N", "GN")] == [
            (5000, 10),
            (5000, 10),
            (4180, 10),
            (3980, 10),
        ]


def without(lists: TrialLists, *left_out: str) -> TrialLists:
    """Lists that lack some groups of verification, as those of the D split do."""
    kept = {
        split: {group: one for group, one in groups.items() if group not in left_out}
        for split, groups in lists.verification.items()
    }
    return replace(lists, verification=kept)


@pytest.mark.parametrize("group", ["GN", "N"])
@pytest.mark.parametrize("split", [UNSEEN, SEEN])
def test_verification_keeps_the_genuine_pairs_and_draws_alike_impostors(
    read: TrialLists, split: str, group: str
) -> None:
    drawn = with_drawn(without(read, "N"))
    pairs, published = drawn.verification[split][group], drawn.verification[split]["U"]
    voices, faces = (drawn.catalogues[one].person for one in (VOICE, FACE))
    assert (pairs.genuine == (voices[pairs.voices] == faces[pairs.faces])).all() and pairs.genuine.mean() == 0.5
    shared = drawn.people.group(group)
    if group == "N":  # whatever their sex
        sexes = drawn.people.group("G")
        assert len(np.unique(sexes[voices[pairs.voices]] == sexes[faces[pairs.faces]])) == 2
    assert (shared[voices[pairs.voices]] == shared[faces[pairs.faces]]).all()
    kept = published.kept(published.genuine)
    assert set(zip(pairs.voices[::2].tolist(), pairs.faces[::2].tolist(), strict=True)) == set(
        zip(kept.voices.tolist(), kept.faces.tolist(), strict=True)
    )


def test_a_list_that_is_published_is_not_drawn_and_another_that_is_changes_none(read: TrialLists) -> None:
    of_p, of_d = with_drawn(read), with_drawn(without(read, "N"))
    names = [{Path(name).name for name in one.drawn["lists"] if "verif" in name} for one in (of_p, of_d)]  # type: ignore[union-attr, attr-defined]
    gn = {f"veriflist_test_GN_{side}.txt" for side in ("unseenunheard", "seenheard")}
    assert names == [gn, gn | {name.replace("GN", "N") for name in gn}]
    for split in (UNSEEN, SEEN):
        assert of_p.verification[split]["N"] is read.verification[split]["N"]
        np.testing.assert_array_equal(of_p.verification[split]["GN"].faces, of_d.verification[split]["GN"].faces)
        assert not np.array_equal(of_d.verification[split]["N"].faces, of_d.verification[split]["GN"].faces)


def test_of_people_of_one_country_none_is_drawn(read: TrialLists) -> None:
    alike = replace(read.people, nationality=np.zeros_like(read.people.nationality))
    lists = with_drawn(without(replace(read, people=alike), "N"))
    assert all({"N", "GN"}.isdisjoint(groups) for groups in lists.verification.values())


def test_the_seed_decides_the_draw_and_the_digest_tells(read: TrialLists, drawn: TrialLists) -> None:
    again, other = with_drawn(read), with_drawn(read, seed=21)
    np.testing.assert_array_equal(
        again.matching_1_to_n[VOICE, "U"].candidates, drawn.matching_1_to_n[VOICE, "U"].candidates
    )
    assert again.drawn == drawn.drawn and other.drawn["digest"] != drawn.drawn["digest"]
    assert (drawn.drawn["seed"], other.drawn["seed"]) == (20, 21)


@pytest.mark.parametrize("left_out", [(), ("N",)])
def test_what_was_drawn_is_kept_as_its_digest_says(read: TrialLists, tmp_path: Path, left_out: tuple[str, ...]) -> None:
    drawn = with_drawn(without(read, *left_out))
    place = keep_drawn(drawn, tmp_path)
    assert place is not None and place.name == str(drawn.drawn["digest"])[:16]
    digests = drawn.drawn["lists"]
    assert isinstance(digests, dict) and "veriflist/veriflist_test_GN_seenheard.txt" in digests
    for name, digest in digests.items():
        assert hashlib.sha256((place / name).read_bytes().removesuffix(b"\n")).hexdigest() == digest
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*.*")}
    assert keep_drawn(drawn, tmp_path) == place
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.*")} == before


def test_lists_that_a_protocol_has_are_not_drawn(tmp_path: Path) -> None:
    own = read_trial_lists(write_small_protocol(tmp_path / "population", people=12))
    assert with_drawn(own) is own and keep_drawn(own, tmp_path) is None
