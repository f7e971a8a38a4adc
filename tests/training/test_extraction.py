"""Extraction of features: what serving would give, once per content, whatever kills it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.encoder import Embedding, Encoder
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.samples import read_face, read_voice
from ingest.track import Span
from tests.training.feature_corpus import tone, write_corpus, write_encoder
from training import extraction as module
from training.corpora import Manifest, Source, Split, read_corpus
from training.extraction import Extracted, Order, extract
from training.feature_shards import FeatureChunk, Item, Setup, encode_chunk, read_feature_shard, write_array
from training.features import Features, FeaturesError
from training.population.folder import write_wav


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "one")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "three")


@pytest.fixture
def corpus(made, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / made.name))


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_SAMPLES", 2)
        yield


def order(corpus: Path, encoder: Path, folder: Path) -> Order:
    manifests = [read_corpus("folder", Source(corpus, least_people=1), split) for split in Split]
    return Order("three", manifests, [encoder], folder, "all", "dlib_hog")


class Told(list[tuple[Modality, int, int, int]]):
    def __call__(self, *progress) -> None:
        self.append(progress)


def run(wanted: Order, told: Told | None = None, workers: int = 0) -> Extracted:
    return extract(wanted, workers=workers, on_progress=Told() if told is None else told)


@pytest.fixture(scope="module")
def whole(made, encoder, tmp_path_factory) -> Path:
    """Features extracted without any disturbance."""
    folder = tmp_path_factory.mktemp("whole") / "features"
    run(order(made, encoder, folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_vectors_are_those_that_serving_gives(whole, made, encoder) -> None:
    features, detector, serving = Features.open(whole), load_face_detector(), Encoder.load(encoder)
    for modality in Modality:
        table = features[modality]
        assert table.space.digest == serving.space.digest and len(table.rows) == 6
        for row, vector in zip(table.rows, table.vectors, strict=True):
            sample = read_face(made / row.path, detector) if modality is Modality.FACE else read_voice(made / row.path)
            (answer,) = serving.encode(modality, [sample])
            assert isinstance(answer, Embedding)
            np.testing.assert_allclose(vector, answer.vector, atol=1e-5)


def test_rows_say_whom_they_show_and_where_they_came_from(whole) -> None:
    row = Features.open(whole)[Modality.VOICE].rows[0]
    assert (row.person, row.video, row.split, row.path) == ("Ada", "june", "train", "train/Ada/june/voice.wav")


@pytest.mark.long
def test_worker_processes_give_the_same_files(made, encoder, whole, tmp_path) -> None:
    run(order(made, encoder, tmp_path / "features"), workers=2)
    assert contents(tmp_path / "features") == contents(whole)
    assert not multiprocessing.active_children()


def test_the_second_time_nothing_is_read(corpus, encoder, tmp_path) -> None:
    wanted = order(corpus, encoder, tmp_path / "features")
    first = run(wanted)
    before, told = contents(wanted.folder), Told()
    second = run(wanted, told)
    assert first.unchanged == 0 and second.unchanged == 12
    assert [(modality, done, total) for modality, done, total, _ in told] == [("face", 6, 6), ("voice", 6, 6)]
    assert contents(wanted.folder) == before


def die_at(replacement: int, wanted: Order) -> bool:
    """Extract in a child that is killed at its n-th writing of a file; whether it came to the end before."""
    child = os.fork()
    if not child:
        left, rename = [replacement], os.replace

        def counted(*names, **options) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*names, **options)

        os.replace = counted
        try:
            run(wanted)
        finally:
            os._exit(0 if left[0] > 0 else 1)
    return os.waitpid(child, 0)[1] == 0


def test_killed_at_every_point_it_comes_to_the_same_end(made, encoder, whole, tmp_path) -> None:
    wanted = order(made, encoder, tmp_path / "features")
    deaths = next(number for number in range(1, 100) if die_at(number, wanted)) - 1
    assert deaths > 6
    assert contents(wanted.folder) == contents(whole) and not (wanted.folder / "work").exists()


@pytest.mark.long
def test_an_interrupt_keeps_what_is_done_and_leaves_no_process(made, encoder, whole, tmp_path) -> None:
    wanted = order(made, encoder, tmp_path / "features")

    def interrupt(_modality, done, _total, _unusable) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(wanted, workers=1, on_progress=interrupt)
    assert not multiprocessing.active_children()
    with pytest.raises(FeaturesError, match="holds no features"):
        Features.open(wanted.folder)
    told = Told()
    run(wanted, told)
    assert told[0][1] >= 2 and contents(wanted.folder) == contents(whole)


def test_what_cannot_be_used_is_listed_and_looked_at_once(corpus, encoder, tmp_path) -> None:
    (corpus / "train/Ada/may/face.png").write_bytes(b"no photo")
    write_wav(corpus / "test/Cid/may/voice.wav", np.zeros(8000, np.float32))
    wanted, told = order(corpus, encoder, tmp_path / "features"), Told()
    reasons = dict(run(wanted, told).unusable)
    assert reasons.keys() == {"train/Ada/may/face.png", "test/Cid/may/voice.wav"}
    assert "begins like" in reasons["train/Ada/may/face.png"] and "dBFS" in reasons["test/Cid/may/voice.wav"]
    assert ("face", 6, 6, 1) in told and told[-1] == ("voice", 6, 6, 1)
    assert run(wanted).unchanged == 12 and dict(Features.open(wanted.folder).unusable()) == reasons


def test_a_file_that_is_gone_is_tried_again_when_it_is_back(corpus, encoder, tmp_path) -> None:
    wanted, at = order(corpus, encoder, tmp_path / "features"), corpus / "train/Ada/may/voice.wav"
    at.rename(tmp_path / "away.wav")
    assert run(wanted).unusable == [("train/Ada/may/voice.wav", "is not there")]
    (tmp_path / "away.wav").rename(at)
    told = Told()
    assert run(wanted, told).unusable == [] and ("voice", 5, 6, 0) in told


def test_another_content_is_encoded_anew_and_nothing_else_is(corpus, encoder, tmp_path) -> None:
    wanted = order(corpus, encoder, tmp_path / "features")
    run(wanted)
    before = Features.open(wanted.folder)[Modality.VOICE].of("Bel").copy()
    write_wav(corpus / "validation/Bel/may/voice.wav", tone(900))
    told = Told()
    run(wanted, told)
    after = Features.open(wanted.folder)[Modality.VOICE].of("Bel")
    assert [done for modality, done, _, _ in told if modality == "voice"] == [5, 6]
    assert np.array_equal(before[0], after[0]) and not np.allclose(before[1], after[1])
    assert len(list(wanted.folder.glob("*.npy"))) == 2


def test_a_content_that_is_there_twice_is_encoded_once_and_told(corpus, encoder, tmp_path) -> None:
    shutil.copy(corpus / "train/Ada/may/voice.wav", corpus / "train/Ada/june/voice.wav")
    shutil.copy(corpus / "train/Ada/may/face.png", corpus / "test/Cid/may/face.png")
    wanted = order(corpus, encoder, tmp_path / "features")
    found = run(wanted)
    assert (found.duplicates, found.shared) == (2, ["test/Cid/may/face.png"])
    ada = Features.open(wanted.folder)[Modality.VOICE].of("Ada")
    assert np.array_equal(ada[0], ada[1])


def test_a_file_that_may_not_be_opened_is_tried_again_though_it_has_not_changed(made, encoder, tmp_path) -> None:
    wanted = order(made, encoder, tmp_path / "features")
    open_file = Item.key

    def refused(item: Item) -> str:
        if item.path == "train/Ada/may/voice.wav":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Item, "key", refused)
        assert run(wanted).unusable == [("train/Ada/may/voice.wav", "cannot be read (Permission denied)")]
    assert run(wanted).unusable == []


def test_a_file_that_moved_keeps_its_vector_and_is_not_encoded_again(corpus, encoder, tmp_path, monkeypatch) -> None:
    wanted = order(corpus, encoder, tmp_path / "features")
    run(wanted)
    encode, encoded = Encoder.encode, []
    monkeypatch.setattr(Encoder, "encode", lambda self, *what: encoded.extend(what[1]) or encode(self, *what))
    (corpus / "train/Ada/may").rename(corpus / "train/Ada/july")
    moved = run(order(corpus, encoder, wanted.folder))
    assert moved.unchanged == 10 and moved.unusable == [] and encoded == []
    assert set(Features.open(wanted.folder)[Modality.FACE].videos("Ada")) == {"july", "june"}


def test_a_stretch_of_a_sound_has_a_vector_of_its_own(made, encoder, tmp_path) -> None:
    (manifest, *_) = order(made, encoder, tmp_path).manifests
    voice = next(one for one in manifest.samples if one.modality is Modality.VOICE)
    parts = (replace(voice, end=0.45), replace(voice, start=0.05), voice)
    faces = tuple(one for one in manifest.samples if one.modality is Modality.FACE)
    wanted = replace(
        order(made, encoder, tmp_path / "features"), manifests=[replace(manifest, samples=faces + tuple(sorted(parts)))]
    )
    assert run(wanted).rows[Modality.VOICE] == 3
    table = Features.open(wanted.folder)[Modality.VOICE]
    assert len({row.key for row in table.rows}) == 3
    (answer,) = Encoder.load(encoder).encode(Modality.VOICE, [read_voice(made / voice.path, Span(0.0, 0.45))])
    assert isinstance(answer, Embedding)
    place = next(number for number, row in enumerate(table.rows) if row.end == 0.45)
    np.testing.assert_allclose(table.vectors[place], answer.vector, atol=1e-5)


@pytest.mark.parametrize("begun", [False, True])
def test_another_corpus_or_space_is_not_mixed_in(made, encoder, whole, tmp_path, begun) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "features"))
    if begun:  # an extraction that never came to its end
        (folder / "work").mkdir()
        (folder / "features.json").rename(folder / "work/features.json")
    other = write_encoder(tmp_path / "other", seed=1)
    with pytest.raises(FeaturesError, match=r"features of other spaces .* choose another --output"):
        run(order(made, other, folder))
    with pytest.raises(FeaturesError, match="features of another corpus"):
        run(replace(order(made, encoder, folder), name="another"))


def test_features_that_were_read_in_another_way_are_extracted_anew(made, encoder, whole, tmp_path, monkeypatch) -> None:
    folder, told = Path(shutil.copytree(whole, tmp_path / "features")), Told()
    monkeypatch.setattr(module, "_READING", ("ingest/faces.py",))
    run(order(made, encoder, folder), told)
    assert told[0] == ("face", 0, 6, 0)


def test_two_encoders_of_one_modality_do_not_go_into_one_folder(made, encoder, tmp_path) -> None:
    with pytest.raises(FeaturesError, match="both encode faces"):
        run(replace(order(made, encoder, tmp_path), encoders=[encoder, encoder]))


def test_somebody_on_two_sides_is_refused(made, encoder, tmp_path) -> None:
    wanted = order(made, encoder, tmp_path / "features")
    twice: list[Manifest] = [wanted.manifests[0], replace(wanted.manifests[0], split=Split.TEST)]
    with pytest.raises(FeaturesError, match="Ada is in TRAIN and in TEST"):
        run(replace(wanted, manifests=twice))


def test_one_process_at_a_time_extracts_into_a_folder(made, encoder, tmp_path) -> None:
    wanted = order(made, encoder, tmp_path / "features")
    with module._held(_made(wanted.folder)), pytest.raises(FeaturesError, match="another process extracts"):
        run(wanted)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_without_a_usable_sample_there_are_no_features(corpus, encoder, tmp_path) -> None:
    for path in corpus.rglob("*.wav"):
        path.write_bytes(b"no sound")
    with pytest.raises(FeaturesError, match=r"none of 6 voices can be used, for example train/Ada/june/voice\.wav: "):
        run(order(corpus, encoder, tmp_path / "features"))


def test_a_sample_that_killed_its_reader_is_left_out_and_the_others_are_not(made, encoder, tmp_path) -> None:
    paths = [f"train/Ada/{video}/voice.wav" for video in ("june", "may")]
    chunk = FeatureChunk(tmp_path / "000000.json", tuple(Item(path, made / path, None) for path in paths))
    write_array(tmp_path / "known.npy", np.array([], dtype="S64"))
    encode_chunk(chunk, frozenset({1}), Setup(encoder, Modality.VOICE, "dlib_hog", "cpu", tmp_path / "known.npy"))
    shard = read_feature_shard(chunk.path)
    first, second = shard.fates.values()
    assert shard.keys == (first.key,) and "kills the process" in second.reason
    assert not (tmp_path / "000000.reading").exists()
