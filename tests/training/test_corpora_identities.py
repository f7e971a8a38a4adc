"""Whom a model was trained on, by the real lists: P and D overlap, and a person of two names is one person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.points import SeenInTraining, refuse_seen
from search.protocols import Protocol, read_protocol
from tests.conftest import SHARED
from tests.encoders.shared_encoder import make_shared_encoder
from tests.training.corpus_trees import make
from training.corpora import CorpusError, Manifest, Source, Split, read_corpus

P, D = SHARED / "data" / "protocol", SHARED / "data" / "protocol_d"

pytestmark = pytest.mark.skipif(
    not (P.is_dir() and D.is_dir()), reason="the published lists are not beside this checkout"
)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A voice and a face of everybody of VoxCeleb1, as distributed; nobody reads their content."""
    folder = tmp_path_factory.mktemp("everybody")
    for row in (P / "vox1_meta.csv").read_text().splitlines()[1:]:
        number, name = row.split("\t")[:2]
        for path in (folder / f"wav/{number}/video/00001.wav", folder / f"faces/{name}/1.6/video/0000025.jpg"):
            path.parent.mkdir(parents=True)
            path.touch()
    return folder


@pytest.fixture(scope="module")
def tested() -> Protocol:
    """P's test."""
    return read_protocol(P)


def read(media: Path, name: str, split: Split) -> Manifest:
    source = Source(media, lists=D if name == "voxceleb1-d" else P, most_missing=1.0)
    return read_corpus(name, source, split)


@pytest.fixture(scope="module")
def trained(media) -> Manifest:
    """D's training."""
    return read(media, "voxceleb1-d", Split.TRAIN)


def test_p_has_901_100_and_250_people_and_d_924_112_and_189(media, trained, tested) -> None:
    own = read(media, "voxceleb1", Split.TRAIN).identities
    assert (len(own), len(read(media, "voxceleb1", Split.VALIDATION).identities), len(trained.identities)) == (
        901,
        100,
        924,
    )
    refuse_seen(tested, own)
    assert [len(read(media, "voxceleb1-d", one).identities) for one in (Split.VALIDATION, Split.TEST)] == [112, 189]


def test_169_of_p_s_test_people_are_in_d_s_training_so_its_models_are_refused(trained, tested) -> None:
    assert len(tested.test_people_among(trained.identities)) == 169
    with pytest.raises(SeenInTraining, match="trained on 169 of the 250 people"):
        refuse_seen(tested, trained.identities)


def test_an_encoder_folder_that_names_people_by_their_ids_is_refused_too(trained, tested, tmp_path) -> None:
    numbers = {one.known_as.split("/")[0] for one in trained.samples if one.known_as.startswith("id1")}
    encoder = make_shared_encoder(tmp_path / "encoder", identities=numbers)
    assert len(encoder.identities) == 924
    assert len(tested.test_people_among(encoder.identities)) == 169


def test_a_test_person_in_a_folder_of_one_s_own_is_recognised_by_the_id(tested, tmp_path) -> None:
    make(tmp_path, [f"train/{number}/{name}" for number in ("id10001", "id10002") for name in ("a.jpg", "a.wav")])
    source = Source(tmp_path, lists=P)
    assert read_corpus("folder", source, Split.TRAIN).identities == ("A.J._Buckley", "A.R._Rahman")
    with pytest.raises(CorpusError, match=r"test people of a protocol, such as A\.R\._Rahman"):
        read_corpus("folder", replace(source, test=tested.identities), Split.TRAIN)


@pytest.mark.long
def test_every_file_of_p_s_test_lists_is_asked_for(media) -> None:
    manifest = read(media, "voxceleb1", Split.TEST)
    assert len(manifest.identities) == 250
    listed, there = manifest.missing[0].split(" files of the lists are not there")[0].split(" of ")
    assert listed == there and int(there) > 40_000
