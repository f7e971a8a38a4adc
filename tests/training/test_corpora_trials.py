"""Lists over a corpus's own test people: of the published form, and read by the one evaluator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.space import Modality
from search.protocols import Protocol, read_protocol
from tests.training.corpus_trees import make
from training.corpora import CorpusError, Manifest, Source, Split, read_corpus
from training.corpora.trials import MOST_SAMPLES, write_trials

SEXES = {"Ada": "f", "Bel": "f", "Cid": "m", "Dan": "m", "Eve": "f"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    root = tmp_path_factory.mktemp("trials") / "corpus"
    make(root, [f"test/{name}/{number}.{kind}" for name in SEXES for number in (1, 2) for kind in ("jpg", "wav")])
    rows = "".join(f"{name}\t{name}\t{sex}\tUSA\tdev\n" for name, sex in SEXES.items())
    (root / "meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + rows)
    (root / "train").mkdir()
    return read_corpus("folder", Source(root), Split.TEST)


@pytest.fixture(scope="module")
def protocol(manifest, tmp_path_factory) -> Protocol:
    return read_protocol(write_trials(manifest, tmp_path_factory.mktemp("home") / "trials"))


def test_everybody_and_every_sample_is_asked_for(manifest, protocol) -> None:
    assert protocol.identities == frozenset(SEXES) and protocol.domain == manifest.domain
    assert protocol.sex == SEXES
    for modality in Modality:
        assert len(protocol.samples(modality).paths) == 10
        files = {(protocol.media / path).resolve() for path in protocol.samples(modality).paths}
        assert files == {manifest.locate(one).resolve() for one in manifest.samples if one.modality is modality}


def test_pairs_are_half_of_one_person_and_those_of_one_sex_keep_to_it(protocol) -> None:
    for kind, trials in protocol.verification.items():
        assert Counter(trials.same) == {True: 10, False: 10}
        sexes = [
            (SEXES[protocol.person_of(one)], SEXES[protocol.person_of(other)])
            for one, other in zip(trials.voices, trials.faces, strict=True)
        ]
        assert all(one == other for one, other in sexes) == (kind == "G")


def test_candidates_are_of_different_people_and_as_many_in_every_row(protocol) -> None:
    assert {len(row) for row in protocol.matching[Modality.VOICE, "U"].candidates} == {5}
    assert {len(row) for row in protocol.matching[Modality.FACE, "G"].candidates} == {2}
    for row in protocol.matching[Modality.FACE, "U"].candidates:
        assert len({protocol.person_of(path) for path in row}) == 5


def test_the_same_seed_gives_the_same_lists_and_another_seed_others(manifest, tmp_path) -> None:
    digests = [
        read_protocol(write_trials(manifest, tmp_path / name, seed)).lists_digest
        for name, seed in (("one", 0), ("two", 0), ("three", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_what_is_there_already_is_left_alone_and_what_is_of_another_corpus_replaced(manifest, tmp_path) -> None:
    folder = write_trials(manifest, tmp_path / "trials")
    (folder / "mark").touch()
    assert (write_trials(manifest, folder) / "mark").exists()
    fewer = replace(manifest, samples=tuple(one for one in manifest.samples if one.identity != "Eve"))
    assert not (write_trials(fewer, folder) / "mark").exists()
    assert "Eve" not in read_protocol(folder).identities


def test_a_stretch_of_a_sound_is_cut_out(manifest, tmp_path) -> None:
    first = next(one for one in manifest.samples if one.modality is Modality.VOICE)
    samples = [replace(first, end=0.01) if one is first else one for one in manifest.samples]
    folder = write_trials(replace(manifest, samples=tuple(sorted(samples))), tmp_path / "trials")
    (cut,) = folder.rglob("*.flac")
    assert not cut.is_symlink() and cut.parent.name == first.identity


def test_of_many_samples_some_of_every_video_are_taken(tmp_path) -> None:
    for name in ("Ada", "Bel"):
        make(tmp_path, [f"test/{name}/{video}/{clip:02d}.wav" for video in "abcd" for clip in range(20)])
        make(tmp_path, [f"test/{name}/photo.jpg"])
    (tmp_path / "train").mkdir()
    manifest = read_corpus("folder", Source(tmp_path), Split.TEST)
    whole = replace(manifest, samples=tuple(replace(one, sex="f") for one in manifest.samples))
    folder = write_trials(whole, tmp_path / "trials")
    videos = Counter(Path(link).resolve().parent.name for link in (folder / "media/Ada").glob("voice_*"))
    assert videos.total() == MOST_SAMPLES and set(videos) == set("abcd")


@pytest.mark.parametrize(
    ("sexes", "told"), [({"Ada": ""}, "nobody says whether Ada is f or m"), ({"Ada": "f", "Cid": "m"}, "no two test")]
)
def test_without_sexes_there_are_no_lists(manifest, tmp_path, sexes, told) -> None:
    samples = tuple(
        replace(one, sex=sexes.get(one.identity, one.sex)) for one in manifest.samples if one.identity in ("Ada", "Cid")
    )
    with pytest.raises(CorpusError, match=told):
        write_trials(replace(manifest, samples=samples), tmp_path / "trials")
