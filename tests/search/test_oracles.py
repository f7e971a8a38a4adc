"""Oracles, computed from lists and meta at run time: the protocol's own table, to its last digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.space import Modality
from search.generated_lists import with_drawn
from search.oracles import ORACLES, oracle
from search.protocol_outcome import figures, outcome
from search.published_lists import read_trial_lists
from search.trial_lists import SEEN, UNSEEN, TrialLists
from search.two_way import Side, rank_both_ways
from tests.search.small_lists import write_small_lists

# In %, as PROTOCOL.md has them: AUC of U, G, N, A, GNA; accuracy of 1:2 of U, G, N, GN; mean average precision.
TABLE = {
    "gender": {
        UNSEEN: (73.08, 50.86, 73.78, 70.94, 50.97), SEEN: (75.32, 50.18, 74.74, 74.83, 50.16),
        "voice_to_face": (74.57, 50.00, 73.87, 50.00), "face_to_voice": (73.75, 50.00, 74.13, 50.00),
        "map": (1.07, 1.08),
    },
    "gender_nationality": {
        UNSEEN: (90.22, 82.00, 73.78, 89.47, 50.97), SEEN: (88.63, 77.57, 74.74, 88.71, 50.16),
        "voice_to_face": (89.93, 79.74, 73.87, 50.00), "face_to_voice": (90.18, 79.75, 74.13, 50.00),
        "map": (15.79, 15.79),
    },
}  # fmt: skip
HALF_A_DIGIT = 0.005 + 1e-9
WAYS = ("voice_to_face", "face_to_voice")


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_the_oracles_are_those_of_the_protocol_s_table(published_trials: TrialLists, name: str) -> None:
    tree = figures(outcome(published_trials, oracle(published_trials, name)), None)
    table = TABLE[name]
    for split in (UNSEEN, SEEN):
        told = [100 * tree["verification"][split][group]["auc"] for group in ("U", "G", "N", "A", "GNA")]
        assert told == pytest.approx(table[split], abs=HALF_A_DIGIT)
    for way in WAYS:
        told = [100 * tree["matching"][way][group]["accuracy"] for group in ("U", "G", "N", "GN")]
        assert told == pytest.approx(table[way], abs=HALF_A_DIGIT)
    told = [100 * tree["retrieval"][way]["map"] for way in WAYS]
    assert told == pytest.approx(table["map"], abs=HALF_A_DIGIT)
    assert [100 * tree["retrieval"][way]["chance"] for way in WAYS] == pytest.approx([0.599] * 2, abs=5e-4)


def test_same_video_positives_are_an_eighth_of_the_published_ones(published_trials: TrialLists) -> None:
    rows = published_trials.retrieval
    recordings = [published_trials.catalogues[one].recording[rows[one]] for one in Modality]
    people = [published_trials.catalogues[one].person[rows[one]] for one in Modality]
    most = max(int(one.max()) for one in recordings) + 1
    together = int(np.bincount(recordings[0], minlength=most) @ np.bincount(recordings[1], minlength=most))
    positives = int(np.bincount(people[0], minlength=1251) @ np.bincount(people[1], minlength=1251))
    assert together / positives == pytest.approx(0.131, abs=5e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_lists(tmp_path_factory.mktemp("lists"))


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_counting_gives_what_searching_gives(folder: Path, name: str) -> None:
    lists = read_trial_lists(folder)
    group = oracle(lists, name).group

    def side(modality: Modality) -> Side:
        rows, catalogue = lists.retrieval[modality], lists.catalogues[modality]
        return Side(np.eye(group.max() + 1)[group[catalogue.person[rows]]], catalogue.person[rows],
                    catalogue.recording[rows])  # fmt: skip

    searched = rank_both_ways(side(Modality.VOICE), side(Modality.FACE))
    counted = oracle(lists, name).both_ways(lists)
    for modality, expected in zip((Modality.VOICE, Modality.FACE), searched, strict=True):
        for line in ("average_precision", "other_videos", "before", "tied", "wanted", "relevant"):
            np.testing.assert_allclose(getattr(counted[modality], line), getattr(expected, line), rtol=1e-12)


def of_gender(folder: Path) -> dict[str, Any]:
    lists = with_drawn(read_trial_lists(folder))
    return figures(outcome(lists, oracle(lists, "gender")), None)


def test_an_oracle_follows_the_meta_file(folder: Path, tmp_path: Path) -> None:
    changed = write_small_lists(tmp_path / "changed")
    meta = changed / "vox1_meta.csv"
    lines = meta.read_text().splitlines()
    # ten women become men: nothing but the meta file changes
    lines[1:11] = [line.replace("\tf\t", "\tm\t") for line in lines[1:11]]
    meta.write_text("\n".join(lines) + "\n")
    before, after = of_gender(folder), of_gender(changed)
    for split in (UNSEEN,):
        assert before["verification"][split]["U"]["auc"] != after["verification"][split]["U"]["auc"]
    for way in WAYS:
        assert before["matching"][way]["U"]["accuracy"] != after["matching"][way]["U"]["accuracy"]
        assert (
            before["matching_1_to_n"][way]["U"]["10"]["accuracy"]
            != after["matching_1_to_n"][way]["U"]["10"]["accuracy"]
        )
        # every person has as many samples, so the mean precision of two groups stays; the first five do not
        assert before["retrieval"][way]["recall_at_5"] != after["retrieval"][way]["recall_at_5"]
