"""Samples of a protocol on disk: where they lie, what is missing, and their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from ingest.media import MediaError
from search.list_folder import ProtocolError
from search.protocol_media import VALIDATION_SAMPLES, embed_lists, export_vectors, find_files
from search.published_lists import read_trial_lists
from search.sample_vectors import read_sample_vectors
from search.trial_lists import TrialLists
from tests.search.protocol_vectors import all_names
from tests.search.small_lists import write_small_lists
from tests.search.test_points import Spelling

VOICE, FACE = Modality.VOICE, Modality.FACE


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> TrialLists:
    return read_trial_lists(write_small_lists(tmp_path_factory.mktemp("lists")))


@pytest.fixture
def media(lists: TrialLists, tmp_path: Path) -> Path:
    """Voices and faces as VoxCeleb1 unpacks them, those of some validation people too."""
    more = [f"id10048/film/{clip:05d}.wav" for clip in range(50)] + ["Person_47/1.6/film/0000025.jpg"]
    for name in [*all_names(lists), *more]:
        path = tmp_path / ("vox1_dev_wav/wav" if name.endswith(".wav") else "unzippedFaces") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def reader(path: Path) -> str:
    if path.name == "0000025.jpg" and "Person_00" in str(path):
        raise MediaError(path, "is damaged")
    return path.read_text()


READERS = {VOICE: reader, FACE: reader}


def test_files_are_found_where_the_corpus_unpacks_them(lists: TrialLists, media: Path) -> None:
    files = find_files(lists, media)
    for modality, folder in ((VOICE, "vox1_dev_wav/wav"), (FACE, "unzippedFaces")):
        for name in lists.catalogues[modality].paths:
            assert files[modality][name] == media / folder / name
    aside = [name for name in files[VOICE] if name.startswith("id10048/")]
    assert 10 <= len(aside) <= VALIDATION_SAMPLES


def test_a_file_that_is_missing_is_named_unless_it_may_be(lists: TrialLists, media: Path) -> None:
    name = lists.catalogues[FACE].paths[5]
    (media / "unzippedFaces" / name).unlink()
    with pytest.raises(ProtocolError, match=f"lacks 1 of the .* such as {name}"):
        find_files(lists, media)
    assert name not in find_files(lists, media, allow_missing=True)[FACE]
    with pytest.raises(ProtocolError, match="no such folder of media"):
        find_files(lists, media / "nowhere")


def test_a_file_that_leads_out_of_where_may_be_read_is_refused(
    lists: TrialLists, media: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    find_files(lists, media, within=[str(media)])
    for name in (f"unzippedFaces/{lists.catalogues[FACE].paths[3]}", "vox1_dev_wav/wav/id10048/film/00000.wav"):
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
        (media / name).rename(elsewhere)
        (media / name).symlink_to(elsewhere)
        find_files(lists, media)
        with pytest.raises(ProtocolError, match=f"{name}: lies outside of the folders that may be read"):
            find_files(lists, media, within=[str(media)])
        (media / name).unlink()
        elsewhere.rename(media / name)


def test_each_sample_has_its_own_vector_and_a_damaged_one_none(lists: TrialLists, media: Path, tmp_path: Path) -> None:
    files = find_files(lists, media)
    vectors, unusable = embed_lists(lists, files, Spelling(), READERS)
    for modality in Modality:
        for row, name in zip(vectors.rows[modality], lists.catalogues[modality].paths, strict=True):
            expected = Spelling().encode(modality, [name])[0]
            if row >= 0:
                np.testing.assert_array_equal(vectors.vectors[row], expected.vector)  # type: ignore[union-attr]
    damaged = {one.path for one in unusable}
    lacking = {lists.catalogues[FACE].paths[row] for row in np.flatnonzero(vectors.rows[FACE] < 0)}
    assert damaged == lacking and damaged and not any(one.readable for one in unusable)
    people = vectors.validation[VOICE][1]
    assert set(people.tolist()) == {47} and vectors.validation[FACE][1].tolist() == [47]


def test_what_was_embedded_is_exported_and_read_again(lists: TrialLists, media: Path, tmp_path: Path) -> None:
    vectors, _ = embed_lists(lists, find_files(lists, media), Spelling(), READERS)
    export_vectors(tmp_path / "out.npz", vectors, lists)
    again = read_sample_vectors(tmp_path / "out.npz", lists, allow_missing=True)
    assert (again.space, again.space_digest) == ("shared", "5" * 64)
    for modality in Modality:
        rows = vectors.rows[modality]
        np.testing.assert_array_equal(again.vectors[again.rows[modality][rows >= 0]], vectors.vectors[rows[rows >= 0]])


def test_what_probes_are_asked_without_goes_along(lists: TrialLists, media: Path, tmp_path: Path) -> None:
    centre = np.array([0.1, 0.2, 0.3, 0.4])
    vectors, _ = embed_lists(lists, find_files(lists, media), Spelling(probe_centres={FACE: centre}), READERS)
    export_vectors(tmp_path / "out.npz", vectors, lists)
    again = read_sample_vectors(tmp_path / "out.npz", lists, allow_missing=True)
    for one in (vectors, again):
        assert set(one.probe_centres) == {FACE} and one.probe_centres[FACE].tolist() == centre.tolist()


def test_nothing_usable_is_an_error(lists: TrialLists, media: Path) -> None:
    def refuse(path: Path) -> str:
        raise MediaError(path, "is damaged")

    with pytest.raises(ProtocolError, match="none of its samples"):
        embed_lists(lists, find_files(lists, media), Spelling(), dict.fromkeys(Modality, refuse))
