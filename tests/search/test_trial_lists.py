"""Rows of samples: one for each canonical path, however a list writes it."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.space import Modality
from search.trial_lists import ListedPathError, People, Register, canonical_path

VOICE, FACE = Modality.VOICE, Modality.FACE
NAMES = {
    VOICE: (
        "Anna/abc_0000001.wav", "Anna/abc_0000002.wav", "Anna/abc_0100002.wav", "id1/abc/00002.wav", "Bo/b",
        "Anna/_0000001.wav", "Anna/_0100001.wav", "Anna/x/abc_0000001.wav", "Anna/x/abc_0200001.wav", "Anna/b",
        "Bo/abc_0000001.wav", "id2/abc/00001.flac", "id2/abc/10001.wav", "id2/abc/x0001.wav", "id2/00001.wav",
        "id2/a_00001.wav", "id2/abc/def/00001.wav", "id2/a_0000001.wavx", "id1/00002.wav", "id1/a.wav",
    ),
    FACE: (
        "Anna/abc/0035550.jpg", "Anna/1.6/abc/0035550.jpg", "Anna/abc/0035575.jpg", "Anna/00000657.jpg", "Bo/b.jpg",
        "Anna/abc/10035550.jpg", "Anna/abc/20035550.jpg", "Anna/abc/003555a.jpg", "Anna/abc/0035550.png", "Bo/b",
        "Anna/0035550.jpg", "Anna/1.6/0035550.jpg", "id2/1.6/abc/0000025.jpg", "Bo/abc/0000025.jpg",
    ),
}  # fmt: skip


@pytest.fixture
def people() -> People:
    two = np.array(["", ""])
    return People(("Anna", "Bo"), ("id1", "id2"), two, two, two)


@pytest.mark.parametrize("modality", Modality)
def test_rows_are_those_of_canonical_paths_in_whichever_order_names_come(people: People, modality: Modality) -> None:
    for seed in range(20):
        register = Register(modality, people, {})
        names = np.random.default_rng(seed).permutation(NAMES[modality]).tolist()
        rows, catalogue = register.rows(names), register.catalogue()
        for row, name in zip(rows, names, strict=True):
            canonical, person, _ = canonical_path(modality, name, people)
            assert (catalogue.paths[row], catalogue.person[row]) == (canonical, person)
        assert sorted(set(rows)) == list(range(len(catalogue.paths)))


def test_samples_of_one_video_share_its_recording_and_others_do_not(people: People) -> None:
    recordings: dict[tuple[int, str], int] = {}
    voices, faces = (Register(modality, people, recordings) for modality in (VOICE, FACE))
    one = voices.rows(["Anna/abc_0000001.wav", "id1/abc/00002.wav", "id1/x/00002.wav", "Bo/abc_0000001.wav", "Bo/b"])
    other = faces.rows(["Anna/abc/0035550.jpg", "Anna/1.6/x/0035550.jpg", "Anna/00000657.jpg"])
    of_voices = voices.catalogue().recording[one].tolist()
    assert of_voices[0] == of_voices[1] and len(set(of_voices)) == 4 and of_voices[4] == -1
    assert faces.catalogue().recording[other].tolist() == [of_voices[0], of_voices[2], -1]


@pytest.mark.parametrize(
    "name", ["00001.wav", "", "Who/abc/00001.wav", "Anna//00001.wav", "Anna/../00001.wav", "Anna/"]
)
def test_a_name_that_cannot_be_meant_is_refused_also_behind_one_like_it(people: People, name: str) -> None:
    register = Register(VOICE, people, {})
    register.rows(["Anna/abc/00001.wav", "id1/00001.wav"])
    with pytest.raises(ListedPathError):
        register.rows([name])
