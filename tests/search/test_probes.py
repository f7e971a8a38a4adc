from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.space import Embedding, Modality
from ingest.track import Span
from search.gallery import Gallery, Tail
from search.probes import ProbeUnusable
from search.scores import NotCalibrated
from tests.search.small_world import ColoursAndTones, World, face, turn

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
SPAN = Span(0.0, 2.0)
FACE, VOICE = Modality.FACE, Modality.VOICE


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, shared=ColoursAndTones())


def test_a_probe_has_a_point_in_its_identity_space_and_one_in_the_shared_space(world: World) -> None:
    probe = world.prober.probe(world.file("a.mp4", [face(BLUE, span=SPAN)], [turn(1), turn(1, 1, 2)]))
    assert {modality: point.space.name for modality, point in probe.shared.items()} == {FACE: "shared", VOICE: "shared"}
    assert {probe.of(modality).space.name for modality in Modality} == {"face_identity", "voice_identity"}  # type: ignore[union-attr]
    assert probe.shared[FACE].vector.argmax() == 2 and probe.shared[VOICE].vector.argmax() == 0


def test_without_a_shared_encoder_a_probe_has_identity_points_only(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.prober.shared is None
    assert world.prober.probe(world.file("a.jpg", [face(RED)])).shared == {}


def test_what_no_encoder_can_use_is_no_probe(world: World) -> None:
    with pytest.raises(ProbeUnusable, match="no usable speech"):
        world.prober.probe(world.file("short.wav", [], [turn(1, 0, 0.05)]))


def test_people_are_ranked_across_modalities_by_the_mean_of_their_other_samples(world: World) -> None:
    world.archive.enrol("Ann", [world.file(f"ann{i}.jpg", [face(colour)]) for i, colour in enumerate((RED, BLUE))])
    world.archive.enrol("Bob", [world.file("bob.jpg", [face(RED)])])
    world.archive.enrol("Cid", [world.file("cid.wav", [], [turn(1)])])  # no face: nothing to compare a voice with
    low = Embedding.of(world.encoders["shared"].space, VOICE, np.array([1.0, 0.0, 0.0]))
    names = world.prober.names()
    ranked = [(names[one.person], round(one.score, 2)) for one in world.prober.shortlist(low, want=FACE)]
    assert ranked == [("Bob", 1.0), ("Ann", 0.71)]


def test_centres_are_those_of_one_modality(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(GREEN, span=SPAN)], [turn(6, 0, 2)])])
    space, ann = world.encoders["shared"].space, world.records.people.find("Ann").id
    faces, voices = (world.prober.centres(space, [ann, "nobody"], modality) for modality in (FACE, VOICE))
    assert faces.keys() == voices.keys() == {ann}
    assert (faces[ann].vector.argmax(), voices[ann].vector.argmax()) == (1, 2)
    assert world.prober.centres(space, [], FACE) == {}


def test_a_comparison_that_is_not_calibrated_is_named(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    red = Embedding.of(world.encoders["shared"].space, FACE, np.array([1.0, 0.0, 0.0]))
    with pytest.raises(NotCalibrated, match="identify by face-face"):
        world.prober.shortlist(red)


def test_the_domains_are_those_of_the_identity_encoders(world: World) -> None:
    assert world.prober.domains() == {"small world"}


GALLERY = Gallery(0.01, Tail(0.2, 0.9, 0.1, 0.0), likeness=0.3)


def galleried(world: World) -> World:
    """Ann, Bob and Cid by face, Dan by voice; the threshold of faces grows with the gallery."""
    numbers = world.encoders["face_identity"].calibration["face-face"]["identify"]["cosine"]
    stored = {"face-face": {"identify": {"cosine": {**numbers, "gallery": GALLERY.to_json()}}}}
    world.encoders["face_identity"].calibration = stored
    for name, colour in (("Ann", RED), ("Bob", GREEN), ("Cid", BLUE)):
        world.archive.enrol(name, [world.file(f"{name}.jpg", [face(colour)])])
    world.archive.enrol("Dan", [world.file("dan.wav", [], [turn(1)])])
    return world


def test_among_everybody_the_threshold_is_that_of_those_enrolled_with_the_modality(world: World) -> None:
    prober, space = galleried(world).prober, world.encoders["face_identity"].space
    assert prober.enrolled().calibration(space, (FACE, FACE)).threshold == pytest.approx(GALLERY.threshold(3))


def test_people_who_are_alike_raise_it(world: World) -> None:
    prober, space = galleried(world).prober, world.encoders["face_identity"].space
    before = prober.enrolled().calibration(space, (FACE, FACE)).threshold
    for number in range(3):  # 0.99 near to Ann and to each other
        world.archive.enrol(f"Twin {number}", [world.file(f"{number}.jpg", [face((200, 30, 10 + number))])])
    after = prober.enrolled().calibration(space, (FACE, FACE)).threshold
    assert after > GALLERY.threshold(6) > before


def test_two_files_compared_through_the_enrolled_are_not_asked_of_everybody(world: World) -> None:
    prober = galleried(world).prober
    red = Embedding.of(world.encoders["face_identity"].space, FACE, np.array([1.0, 0.2, 0.1]))
    pair, asked = prober.shortlist(red)[0], prober.shortlist(red, among=prober.enrolled())[0]
    assert pair.score == asked.score and pair.log_odds == pytest.approx(40.0 * (pair.score - 0.9))
    assert asked.log_odds == pytest.approx(40.0 * (pair.score - GALLERY.threshold(3)))


def test_points_are_compared_with_people_however_far_they_are(world: World) -> None:
    prober, space = galleried(world).prober, world.encoders["face_identity"].space
    ids = [world.records.people.find(name).id for name in ("Ann", "Cid", "Dan")]
    points = {7: Embedding.of(space, FACE, np.array([0.0, 0.0, 1.0]))}
    told = prober.compare(points, ids, FACE, prober.enrolled())
    assert list(told) == [7] and list(told[7]) == [ids[1], ids[0]]
    assert prober.compare({}, ids, FACE, prober.enrolled()) == prober.compare(points, [], FACE, prober.enrolled()) == {}
