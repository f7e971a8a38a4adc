from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from ingest.media import MediaError
from ingest.track import Span
from search.engine import IDENTITY_VECTOR
from search.milvus import MilvusStore
from search.probes import ProbeUnusable
from search.scores import NotCalibrated
from search.store import Filter, MemoryStore, Store
from tests.search.small_world import ColoursAndTones, World, face, turn

RED, PINK, BLUE = (200, 10, 10), (200, 40, 40), (10, 10, 200)
LOW, HIGH = 1, 6  # bands of tones that the shared space puts beside red and beside blue
SPAN = Span(0.0, 2.0)
FACE = Modality.FACE


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(params=["memory", "embedded"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world with a shared-space encoder, on the exact store and on a real embedded Milvus."""
    store: Store = MemoryStore() if request.param == "memory" else MilvusStore(str(tmp_path / "index.db"))
    yield World(tmp_path, store, ColoursAndTones())
    store.close()


@pytest.fixture
def shared(tmp_path: Path) -> World:
    return World(tmp_path, shared=ColoursAndTones())


def test_find_ranks_the_nearest_first_and_says_where(world: World) -> None:
    world.archive.ingest_file(world.file("red.mp4", [face(RED, span=SPAN)]), "default")
    world.archive.ingest_file(world.file("blue.mp4", [face(BLUE, span=SPAN)]), "default")
    first, second = world.engine.find(world.file("ask.jpg", [face(PINK)]), Modality.FACE).hits
    assert first.score > second.score and first.probability > 0.5 > second.probability
    assert (first.start, first.end, first.person, first.space) == (0.0, 2.0, None, "face_identity")


def test_find_says_the_name_of_an_enrolled_hit(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    (hit,) = world.engine.find(world.file("ask.jpg", [face(PINK)]), Modality.FACE).hits
    assert (hit.person, hit.start, hit.end) == ("Ann", None, None)


def test_asking_with_a_file_that_is_in_finds_itself_exactly(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(3)])
    world.archive.ingest_file(film, "default")
    for want in Modality:
        assert world.engine.find(film, want).hits[0].score == pytest.approx(1.0, abs=1e-6)


def test_a_face_that_is_seen_many_times_is_one_hit_and_hides_no_other(world: World) -> None:
    looks = [face((200, 10 + green, 10)).shots[0] for green in range(8)]  # of one track, all nearer than the other face
    crowd = replace(face(RED, span=SPAN), shots=tuple(looks))
    world.archive.ingest_file(world.file("a.mp4", [crowd, face((200, 90, 10), 1, span=Span(3.0, 4.0))]), "default")
    asked = world.file("ask.jpg", [face(RED)])
    one, two, many = (world.engine.find(asked, Modality.FACE, top).hits for top in (1, 2, 10))
    assert [hit.start for hit in many] == [0.0, 3.0] and two == many and one == many[:1]


def test_hits_can_be_kept_to_the_enrolled_or_to_tracks_without_a_name(both: World) -> None:
    both.archive.enrol("Ann", [both.file("ann.mp4", [face(RED, span=SPAN)], [turn(LOW)])])
    for name, colour in (("red.mp4", RED), ("pink.mp4", PINK)):
        both.archive.ingest_file(both.file(name, [face(colour, span=SPAN)]), "default")
    seen, heard = both.file("ask.jpg", [face(RED)]), both.file("ask.wav", [], [turn(LOW)])
    for asked in (seen, heard):  # in one space; and over the bridge and in the shared space
        everyone = both.engine.find(asked, Modality.FACE).hits
        named = both.engine.find(asked, Modality.FACE, where=Filter(enrolled=True)).hits
        unnamed = both.engine.find(asked, Modality.FACE, where=Filter(enrolled=False)).hits
        assert [hit.person for hit in named] == ["Ann"] and {hit.person for hit in unnamed} == {None}
        assert sorted(hit.evidence for hit in [*named, *unnamed]) == sorted(hit.evidence for hit in everyone)
        (gone,) = {hit.media for hit in unnamed[:1]}
        left = both.engine.find(asked, Modality.FACE, where=Filter(exclude_media=(gone,))).hits
        assert [hit.media for hit in left] == [hit.media for hit in everyone if hit.media != gone]


def test_no_hits_is_an_answer(world: World) -> None:
    assert world.engine.find(world.file("ask.jpg", [face(RED)]), Modality.FACE).hits == []


def test_the_bridge_leads_from_a_voice_to_faces_through_somebody_enrolled_with_both(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    world.archive.ingest_file(world.file("film.mp4", [face(PINK, span=SPAN)]), "default")
    answer = world.engine.find(world.file("ask.wav", [], [turn(5, 0, 3)]), Modality.FACE)
    assert {hit.person for hit in answer.hits} == {"Ann", None}
    assert {hit.space for hit in answer.hits} == {"bridge"} and "no shared-space encoder" in (answer.note or "")


def test_without_anybody_on_the_bridge_the_other_modality_has_no_hits_and_a_note(world: World) -> None:
    world.archive.ingest_file(world.file("film.mp4", [face(RED, span=SPAN)]), "default")
    answer = world.engine.find(world.file("ask.wav", [], [turn(5)]), Modality.FACE)
    assert answer.hits == [] and answer.note


def test_a_probe_that_shows_nothing_is_refused(world: World) -> None:
    with pytest.raises(ProbeUnusable, match="no usable face"):
        world.engine.find(world.file("empty.mp4"), Modality.FACE)


def test_a_probe_that_cannot_be_read_is_named(world: World) -> None:
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        world.engine.find(world.broken("bad.mp4"), Modality.FACE)


@pytest.mark.parametrize("top", [0, 1001])
def test_top_has_bounds(world: World, top: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        world.engine.find(world.file("ask.jpg", [face(RED)]), Modality.FACE, top)


def test_a_vector_of_a_space_that_nobody_serves_is_refused(world: World) -> None:
    stranger = Embedding.of(Space("face_identity", 3, "0" * 64), Modality.FACE, np.ones(3))
    with pytest.raises(SpaceMismatch):
        world.engine.find_vector(stranger, Modality.FACE)


def test_verify_tells_one_person_from_two(world: World) -> None:
    red, pink, blue = (world.file(f"{name}.jpg", [face(colour)]) for name, colour in
                       (("red", RED), ("pink", PINK), ("blue", BLUE)))  # fmt: skip
    assert world.engine.verify(red, pink).same
    assert not world.engine.verify(red, blue).same


def test_verify_over_the_bridge_needs_somebody_enrolled_with_both(world: World) -> None:
    photo, clip = world.file("a.jpg", [face(RED)]), world.file("a.wav", [], [turn(5)])
    with pytest.raises(ProbeUnusable, match="enrolled with both"):
        world.engine.verify(photo, clip)
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    assert world.engine.verify(photo, clip).same
    assert not world.engine.verify(world.file("b.jpg", [face(BLUE)]), clip).same


def test_match_names_the_nearest_candidate(world: World) -> None:
    blue, pink = world.file("blue.jpg", [face(BLUE)]), world.file("pink.jpg", [face(PINK)])
    answer = world.engine.match(world.file("red.jpg", [face(RED)]), [blue, pink])
    assert answer.answer == str(pink) and [one.path for one in answer.candidates] == [str(blue), str(pink)]


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "correlation"])
def test_every_similarity_matches_alike_here(world: World, kind: str) -> None:
    blue, pink = world.file("blue.jpg", [face(BLUE)]), world.file("pink.jpg", [face(PINK)])
    assert world.engine.match(world.file("red.jpg", [face(RED)]), [blue, pink], kind).answer == str(pink)


def test_two_strangers_to_everybody_enrolled_are_not_called_two_people(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    with pytest.raises(ProbeUnusable, match="enrolled with both"):
        world.engine.verify(world.file("b.jpg", [face(BLUE)]), world.file("c.wav", [], [turn(1)]))


def test_somebody_who_is_being_forgotten_is_no_hit(world: World) -> None:
    photo = world.file("ann.jpg", [face(RED)])
    world.archive.enrol("Ann", [photo])
    world.records.people.begin_forgetting(world.records.people.find("Ann"))
    assert world.engine.find(photo, Modality.FACE).hits == []


# Across modalities, in the shared space


def ingest_red_and_blue(world: World) -> None:
    """A film of a red face with a low voice and one of a blue face with a high voice."""
    for name, colour, band in (("red", RED, LOW), ("blue", BLUE, HIGH)):
        world.archive.ingest_file(world.file(f"{name}.mp4", [face(colour, span=SPAN)], [turn(band, 2, 3)]), "default")


def test_a_voice_finds_the_faces_that_fit_it_and_says_that_they_are_leads(both: World) -> None:
    ingest_red_and_blue(both)
    answer = both.engine.find(both.file("ask.wav", [], [turn(LOW, 0, 3)]), Modality.FACE)
    first, second = answer.hits
    assert {(hit.space, hit.modality, hit.start, hit.end, hit.person) for hit in answer.hits} == {
        ("shared", "face", 0.0, 2.0, None)
    }
    assert first.score == pytest.approx(0.9975, abs=0.002) and second.score == pytest.approx(0.05, abs=0.02)
    assert first.probability == pytest.approx(0.98, abs=0.01) and second.probability == pytest.approx(0.0, abs=0.01)
    for told in ("leads, never a name", "invented colours", "three crayons and a whistle"):
        assert told in (answer.note or "")


def test_a_face_finds_the_voices_that_fit_it(both: World) -> None:
    ingest_red_and_blue(both)
    first, second = both.engine.find(both.file("ask.jpg", [face(BLUE)]), Modality.VOICE).hits
    assert (first.space, first.modality, first.start, first.end) == ("shared", "voice", 2.0, 3.0)
    blue = both.archive.ingest_file(both.folder / "blue.mp4", "default").media
    assert first.media == blue and first.score > 0.99 > second.score


CENTRED = ColoursAndTones(probe_centres={FACE: np.array([0.0, 0.0, 0.6])})


def test_a_face_asks_for_voices_without_what_all_faces_have(tmp_path: Path) -> None:
    """All faces are bluish, so a high voice is near every one of them and would come first for whoever asks."""
    answers = []
    for name, encoder in (("plain", ColoursAndTones()), ("centred", CENTRED)):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, shared=encoder)
        ingest_red_and_blue(world)
        asked = world.file("ask.jpg", [face((120, 0, 150))])
        answers.append((world, world.engine.find(asked, Modality.VOICE)))
    (_, plain), (world, centred) = answers
    assert [hit.media for hit in centred.hits] == [hit.media for hit in plain.hits][::-1]
    probe = np.array([120.0, 0.0, 150.0]) / np.hypot(120, 150) - CENTRED.probe_centres[FACE]
    rows = {row.media: row.embedding.vector for row in world.store.rows(CENTRED.space)
            if row.embedding.modality is Modality.VOICE}  # fmt: skip
    for hit in centred.hits:
        assert hit.score == pytest.approx(rows[hit.media] @ probe / np.linalg.norm(probe), abs=1e-6)
        # by the calibration for such scores
        assert hit.probability == pytest.approx(1 / (1 + np.exp(-4.0 * (hit.score - 0.5))), abs=1e-6)
    assert "not calibrated" not in (centred.note or "")


def test_whatever_else_is_asked_is_asked_as_before(tmp_path: Path) -> None:
    """Voices that ask, faces that ask for faces, and two files that are compared."""
    answers = []
    for name, encoder in (("plain", ColoursAndTones()), ("centred", CENTRED)):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, shared=encoder)
        ingest_red_and_blue(world)
        voice, photo = world.file("ask.wav", [], [turn(LOW)]), world.file("ask.jpg", [face(PINK)])
        point = Embedding.of(encoder.space, FACE, np.array([0.7, 0.1, 0.7]))
        found = [
            world.engine.find(voice, FACE),
            world.engine.find(photo, FACE),
            world.engine.find_vector(point, FACE),
        ]
        answers.append((found, world.engine.verify(photo, voice), world.engine.match(photo, [voice])))
    assert answers[0][0] == answers[1][0]
    first, second = (one[1] for one in answers)
    assert (first.score, first.probability, first.threshold) == (second.score, second.probability, second.threshold)
    assert [one.score for one in answers[0][2].candidates] == [one.score for one in answers[1][2].candidates]
    assert first.note == second.note and answers[0][2].note == answers[1][2].note


def test_within_a_modality_a_space_that_is_calibrated_for_it_says_so_though_its_probes_are_centred(
    tmp_path: Path,
) -> None:
    encoder = ColoursAndTones(probe_centres=CENTRED.probe_centres)
    encoder.calibration["face-face"] = encoder.calibration["face-voice"]
    world = World(tmp_path, shared=encoder)
    ingest_red_and_blue(world)
    hits = world.engine.find_vector(Embedding.of(encoder.space, FACE, np.array([1.0, 0.0, 0.1])), FACE).hits
    assert hits and all(hit.probability is not None for hit in hits)


def test_a_centre_without_a_calibration_of_its_own_gives_no_probability(tmp_path: Path) -> None:
    encoder = ColoursAndTones(probe_centres=CENTRED.probe_centres)
    del encoder.calibration["face-to-voice"]
    world = World(tmp_path, shared=encoder)
    ingest_red_and_blue(world)
    answer = world.engine.find(world.file("ask.jpg", [face(BLUE)]), Modality.VOICE)
    assert {hit.probability for hit in answer.hits} == {None} and "not calibrated" in (answer.note or "")
    voice = world.file("a.wav", [], [turn(LOW)])
    assert all(hit.probability for hit in world.engine.find(voice, FACE).hits)
    compared = world.engine.verify(world.file("b.jpg", [face(BLUE)]), voice)
    assert compared.probability is not None and "not calibrated" not in (compared.note or "")


def test_a_lead_to_an_enrolled_sample_carries_its_name(both: World) -> None:
    both.archive.enrol("Ann", [both.file("ann.jpg", [face(RED)])])
    (hit,) = both.engine.find(both.file("ask.wav", [], [turn(LOW)]), Modality.FACE).hits
    assert (hit.person, hit.space, hit.start) == ("Ann", "shared", None)


def test_bridge_and_shared_space_meet_as_probabilities_one_hit_per_track(both: World) -> None:
    # Ann's voice is high though her face is red: the bridge leads to red faces, the shared space to blue ones
    both.archive.enrol("Ann", [both.file("ann.mp4", [face(RED, span=SPAN)], [turn(HIGH, 0, 2)])])
    ingest_red_and_blue(both)
    hits = both.engine.find(both.file("ask.wav", [], [turn(HIGH, 0, 3)]), Modality.FACE).hits
    assert len(hits) == len({hit.media for hit in hits}) == 3
    assert sorted((hit.space, hit.person or "") for hit in hits) == [("bridge", ""), ("bridge", "Ann"), ("shared", "")]
    probabilities = [hit.probability or 0.0 for hit in hits]
    assert probabilities == sorted(probabilities, reverse=True) and min(probabilities) > 0.9


def test_no_more_hits_than_asked_for_though_two_ways_lead_to_them(shared: World) -> None:
    shared.archive.enrol("Ann", [shared.file("ann.mp4", [face(RED, span=SPAN)], [turn(HIGH, 0, 2)])])
    ingest_red_and_blue(shared)
    ask = shared.file("ask.wav", [], [turn(HIGH, 0, 3)])
    everything = shared.engine.find(ask, Modality.FACE).hits
    assert shared.engine.find(ask, Modality.FACE, 2).hits == everything[:2]


def test_without_calibration_leads_stand_where_an_even_bet_would(tmp_path: Path) -> None:
    world = World(tmp_path, shared=ColoursAndTones(calibrated_on=None))
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(HIGH, 0, 2)])])
    ingest_red_and_blue(world)
    answer = world.engine.find(world.file("ask.wav", [], [turn(HIGH, 0, 3)]), Modality.FACE)
    assert [hit.space for hit in answer.hits] == ["bridge", "bridge", "shared"]
    assert answer.hits[-1].probability is None and "not calibrated" in (answer.note or "")


def test_a_shared_encoder_changes_nothing_within_a_modality(tmp_path: Path) -> None:
    answers = []
    for name, encoder in (("with", ColoursAndTones()), ("without", None)):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, shared=encoder)
        ingest_red_and_blue(world)
        answers.append(world.engine.find(world.file("ask.jpg", [face(PINK)]), Modality.FACE))
    assert answers[0] == answers[1] and answers[0].note is None


@pytest.mark.parametrize("modality", Modality)
@pytest.mark.parametrize("want", Modality)
def test_vectors_of_the_shared_space_find_either_modality(shared: World, modality: Modality, want: Modality) -> None:
    ingest_red_and_blue(shared)
    blue = Embedding.of(shared.encoders["shared"].space, modality, np.array([0.0, 0.0, 1.0]))
    answer = shared.engine.find_vector(blue, want)
    assert {(hit.space, hit.modality) for hit in answer.hits} == {("shared", str(want))}
    assert answer.hits[0].score > 0.99 > answer.hits[1].score and "leads" in (answer.note or "")
    # only comparisons of a face with a voice are calibrated
    assert (answer.hits[0].probability is None) == (modality is want)


def test_a_vector_of_an_identity_space_crosses_over_the_bridge_only(shared: World) -> None:
    ingest_red_and_blue(shared)
    red = Embedding.of(shared.encoders["face_identity"].space, Modality.FACE, np.array(RED, np.float64))
    answer = shared.engine.find_vector(red, Modality.VOICE)
    assert answer.hits == [] and answer.note == IDENTITY_VECTOR


def test_a_vector_of_the_model_that_served_before_is_refused(shared: World) -> None:
    old = Embedding.of(shared.encoders["shared"].space, Modality.FACE, np.ones(3))
    shared.serve(ColoursAndTones("6"))
    with pytest.raises(SpaceMismatch):
        shared.engine.find_vector(old, Modality.VOICE)


def test_somebody_who_is_being_forgotten_is_no_lead(shared: World) -> None:
    shared.archive.enrol("Ann", [shared.file("ann.jpg", [face(RED)])])
    shared.records.people.begin_forgetting(shared.records.people.find("Ann"))
    assert shared.engine.find(shared.file("ask.wav", [], [turn(LOW)]), Modality.FACE).hits == []


def test_a_face_and_a_voice_of_strangers_are_compared_in_the_shared_space(both: World) -> None:
    photo = both.file("a.jpg", [face(RED)])
    low, high = both.file("low.wav", [], [turn(LOW)]), both.file("high.wav", [], [turn(HIGH)])
    one, other = both.engine.verify(photo, low), both.engine.verify(high, photo)
    assert (one.same, other.same) == (True, False)
    assert {(told.space, told.threshold) for told in (one, other)} == {("shared", 0.9)}
    assert one.probability > 0.9 > 0.1 > other.probability and "leads" in (one.note or "")


def test_whom_the_bridge_recognises_the_shared_space_is_not_asked_about(shared: World) -> None:
    shared.archive.enrol("Ann", [shared.file("ann.mp4", [face(RED, span=SPAN)], [turn(HIGH, 0, 2)])])
    verdict = shared.engine.verify(shared.file("a.jpg", [face(PINK)]), shared.file("a.wav", [], [turn(HIGH)]))
    assert (verdict.space, verdict.same, verdict.note) == ("bridge", True, None)


def test_somebody_enrolled_with_one_modality_is_no_bridge(shared: World) -> None:
    shared.archive.enrol("Bob", [shared.file("bob.mp4", [face(BLUE, span=SPAN)], [turn(3, 0, 2)])])
    shared.archive.enrol("Ann", [shared.file("ann.wav", [], [turn(LOW, 0, 2)])])
    # Ann's voice is recognised, which says nothing of her face; that Bob is neither says nothing at all
    verdict = shared.engine.verify(shared.file("a.jpg", [face(RED)]), shared.file("a.wav", [], [turn(LOW)]))
    assert (verdict.space, verdict.same) == ("shared", True)


def test_an_uncalibrated_similarity_across_modalities_is_said(shared: World) -> None:
    photo, clip = shared.file("a.jpg", [face(RED)]), shared.file("a.wav", [], [turn(LOW)])
    for kind in ("euclidean", "correlation"):
        assert shared.engine.verify(photo, clip, kind).space == "shared"
    shared.serve(ColoursAndTones(calibrated_on=None))
    with pytest.raises(NotCalibrated, match="face-voice"):
        shared.engine.verify(photo, clip)


def test_a_voice_is_matched_with_faces_as_a_lead(both: World) -> None:
    photos = [both.file("blue.jpg", [face(BLUE)]), both.file("red.jpg", [face(RED)])]
    answer = both.engine.match(both.file("low.wav", [], [turn(LOW)]), photos)
    assert answer.answer == str(photos[1]) and "leads" in (answer.note or "")
    assert both.engine.match(both.file("pink.jpg", [face(PINK)]), photos).note is None
