from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ingest.track import Extraction, FaceTrack, Span, Speaking, SpeechTurn
from search.answers import SpeakingFace, WhoTurn
from tests.search.small_world import ColoursAndTones, World, blend, face, turn

RED, PINK, BLUE = (200, 10, 10), (200, 40, 40), (10, 10, 200)
SPAN = Span(0.0, 4.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_speech_is_an_answer(world: World) -> None:
    assert world.engine.who(world.file("mute.mp4", [face(RED, span=SPAN)])).turns == []


def test_without_enrolled_people_every_turn_is_unknown(world: World) -> None:
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2)])).turns
    assert heard.people == [] and heard.answer == "unknown"


def test_a_known_voice_is_named_with_its_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2, 1.0, 3.5)])).turns
    assert (heard.start, heard.end, heard.answer) == (1.0, 3.5, "Ann")
    assert heard.people[0].evidence.voice is not None and heard.people[0].evidence.face is None


def test_a_strange_voice_is_unknown_though_somebody_comes_first(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(6)])).turns
    assert heard.answer == "unknown" and heard.people[0].name == "Ann" and heard.people[0].probability < 0.5


def test_speakers_of_one_file_are_told_apart(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    world.archive.enrol("Bob", [world.file("bob.wav", [], [turn(6, 0, 2)])])
    turns = world.engine.who(world.file("a.wav", [], [turn(2, 0, 1, 0), turn(6, 1, 2, 1), turn(2, 2, 3, 0)])).turns
    assert [heard.answer for heard in turns] == ["Ann", "Bob", "Ann"]


def test_an_enrolled_face_on_screen_joins_as_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(2, 0, 2)])])
    (seen,) = world.engine.who(world.file("a.mp4", [face(PINK, span=SPAN)], [turn(2, 0, 2)])).turns
    (unseen,) = world.engine.who(world.file("b.mp4", [face(BLUE, span=SPAN)], [turn(2, 0, 2)])).turns
    assert seen.people[0].evidence.face is not None and unseen.people[0].evidence.face is None
    assert seen.people[0].probability > unseen.people[0].probability


def test_a_face_off_screen_during_the_turn_is_no_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    later = Span(6.0, 9.0)
    (heard,) = world.engine.who(world.file("a.mp4", [face(RED, span=later)], [turn(2, 0, 2)])).turns
    assert heard.people == [] and heard.answer == "unknown"


def test_somebody_enrolled_by_face_alone_is_named_only_when_alone_on_screen(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    alone = world.file("a.mp4", [face(RED, span=SPAN)], [turn(2, 0, 2)])
    (heard,) = world.engine.who(alone).turns
    assert heard.answer == "Ann" and heard.people[0].evidence.voice is None
    crowd = world.file("b.mp4", [face(RED, 0, span=SPAN), face(BLUE, 1, span=SPAN)], [turn(2, 0, 2)])
    assert world.engine.who(crowd).turns[0].answer == "unknown"


def test_a_forgotten_person_is_named_no_more(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    world.archive.forget("Ann")
    assert world.engine.who(world.file("a.wav", [], [turn(2)])).turns[0].people == []


def test_a_listener_on_screen_with_another_voice_is_not_taken_for_the_speaker(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(0, 0, 2)])])
    for number in range(30):  # more people than are looked at closely, all nearer to the voice than Ann
        world.archive.enrol(f"Person {number}", [world.file(f"{number}.wav", [], [blend(6, 5, 0.3, 0, 2 + number)])])
    # a voice like nobody's: only her face speaks for Ann
    (heard,) = world.engine.who(world.file("a.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])).turns
    ann = [person for person in heard.people if person.name == "Ann"]
    assert heard.answer != "Ann" and not [person for person in ann if person.evidence.voice is None]


def test_somebody_forgotten_while_the_answer_is_made_is_left_out(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    names = world.records.people.names

    def forgotten_after_the_first_look(among: Collection[str] | None = None) -> dict[str, str]:
        told = names(among)
        world.records.people.names = lambda among=None: {}  # type: ignore[method-assign,misc]
        return told

    world.records.people.names = forgotten_after_the_first_look  # type: ignore[method-assign]
    assert world.engine.who(world.file("a.wav", [], [turn(2)])).turns[0].people == []


def test_a_crowd_of_unnamed_voices_does_not_hide_a_known_one(world: World) -> None:
    # the crowd is nearer to the question than Ann is, and larger than what is looked at
    world.archive.enrol("Ann", [world.file("ann.wav", [], [blend(2, 3, 0.2, 0, 2)])])
    crowd = [turn(2, 3.0 * number, 3.0 * number + 1 + number / 1000, number) for number in range(170)]
    world.archive.ingest_file(world.file("crowd.wav", [], crowd), "default")
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2, 0, 1.5)])).turns
    assert heard.answer == "Ann"


# The shared space


LOW, HIGH = 1, 6  # bands of tones that the shared space puts beside red and beside blue
GREEN = (10, 200, 10)
OWN = "small world"  # the domain of the identity encoders


def small(tmp_path: Path, calibrated_on: str | None) -> World:
    """A world with three people; ``calibrated_on`` "no encoder" makes one without a shared space."""
    folder = tmp_path / str(calibrated_on).replace(" ", "_")
    folder.mkdir()
    shared = None if calibrated_on == "no encoder" else ColoursAndTones(calibrated_on=calibrated_on)
    world = World(folder, shared=shared)
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(LOW, 0, 2)])])
    world.archive.enrol("Bob", [world.file("bob.mp4", [face(BLUE, span=SPAN)], [turn(HIGH, 0, 2)])])
    world.archive.enrol("Cid", [world.file("cid.jpg", [face(GREEN)])])
    return world


def heard(world: World, *arguments: Any) -> WhoTurn:
    (answer,) = world.engine.who(world.file("asked.mp4", *arguments)).turns
    return answer


def without_leads(turn: WhoTurn) -> dict[str, Any]:
    told = asdict(turn)
    for person in told["people"]:
        person["evidence"] |= {"voice_to_face": None, "face_to_voice": None}
    return told


def odds(turn: WhoTurn, name: str) -> float:
    (person,) = (one for one in turn.people if one.name == name)
    return person.probability / (1 - person.probability)


@pytest.mark.parametrize("calibrated_on", ["elsewhere", None])
@pytest.mark.parametrize("screen", [[], [face(RED, 0, span=SPAN), face(BLUE, 1, span=SPAN)], [face(GREEN, span=SPAN)]])
def test_who_answers_the_same_beside_a_shared_encoder_of_another_domain(
    tmp_path: Path, calibrated_on: str | None, screen: list[Any]
) -> None:
    with_it, without = small(tmp_path, calibrated_on), small(tmp_path, "no encoder")
    for spoken in ([turn(LOW, 0, 2)], [blend(LOW, LOW + 1, 0.5, 0, 2)], [turn(4, 0, 2)]):
        assert without_leads(heard(with_it, screen, spoken)) == asdict(heard(without, screen, spoken))


def test_the_evidence_carries_what_the_shared_space_says_though_it_has_no_weight(tmp_path: Path) -> None:
    told = heard(small(tmp_path, "elsewhere"), [face(PINK, span=SPAN)], [turn(LOW, 0, 2)])
    evidence = {one.name: one.evidence for one in told.people}
    assert set(evidence) == {"Ann", "Bob"}  # Cid has no voice, and a lead makes no candidate here
    assert evidence["Ann"].voice_to_face == pytest.approx(0.98, abs=0.01)
    assert evidence["Ann"].face_to_voice == pytest.approx(0.94, abs=0.02)
    assert evidence["Bob"].voice_to_face == pytest.approx(0.0, abs=0.01)
    assert evidence["Bob"].face_to_voice == pytest.approx(0.0, abs=0.01)


def test_without_calibration_there_is_no_probability_and_no_failure(tmp_path: Path) -> None:
    ann = heard(small(tmp_path, None), [face(RED, span=SPAN)], [turn(LOW, 0, 2)]).people[0]
    assert (ann.name, ann.evidence.voice_to_face, ann.evidence.face_to_voice) == ("Ann", None, None)


def test_face_to_voice_is_that_of_the_face_on_screen_that_fits_best(tmp_path: Path) -> None:
    world = small(tmp_path, "elsewhere")
    alone, pink = [turn(LOW, 0, 2)], face(PINK, 1, span=SPAN)
    assert heard(world, [], alone).people[0].evidence.face_to_voice is None
    assert heard(world, [face(PINK, span=Span(3.0, 4.0))], alone).people[0].evidence.face_to_voice is None
    crowd = [face(GREEN, 0, span=SPAN), pink, face(BLUE, 2, span=SPAN)]
    told = [heard(world, screen, alone).people[0].evidence.face_to_voice for screen in (crowd, [pink])]
    assert told[0] == told[1] is not None


@pytest.mark.parametrize(("share", "answer"), [(0.5, "Ann"), (0.75, "unknown")])
def test_calibrated_on_this_domain_it_adds_four_to_one_to_a_voice_and_no_more(
    tmp_path: Path, share: float, answer: str
) -> None:
    spoken = [blend(LOW, LOW + 1, share, 0, 2)]
    own, elsewhere = (heard(small(tmp_path, domain), [], spoken) for domain in (OWN, "elsewhere"))
    assert (elsewhere.answer, own.answer) == ("unknown", answer)
    assert odds(own, "Ann") / odds(elsewhere, "Ann") == pytest.approx(4.055, rel=1e-3)


def test_calibrated_on_an_archive_it_adds_to_a_voice_in_the_films_of_that_archive_and_in_no_others(
    tmp_path: Path,
) -> None:
    world, spoken = small(tmp_path, "an archive"), [blend(LOW, LOW + 1, 0.5, 0, 2)]
    elsewhere = heard(world, [], spoken)
    world.serve(ColoursAndTones(calibrated_on=world.domains.archive("mine")))
    assert heard(world, [], spoken).answer == elsewhere.answer == "unknown"
    world.archive.ingest_file(world.folder / "asked.mp4", "yours")
    assert heard(world, [], spoken).answer == "unknown"
    world.archive.ingest_file(world.folder / "asked.mp4", "mine")
    assert odds(heard(world, [], spoken), "Ann") / odds(elsewhere, "Ann") == pytest.approx(4.055, rel=1e-3)


def test_calibrated_on_the_enrolled_it_adds_to_a_voice_in_every_file(tmp_path: Path) -> None:
    world, spoken = small(tmp_path, "the enrolled"), [blend(LOW, LOW + 1, 0.5, 0, 2)]
    elsewhere = heard(world, [], spoken)
    world.serve(ColoursAndTones(calibrated_on=world.domains.enrolled()))
    assert odds(heard(world, [], spoken), "Ann") / odds(elsewhere, "Ann") == pytest.approx(4.055, rel=1e-3)


def test_voice_to_face_and_face_to_voice_together_add_no_more_than_one(tmp_path: Path) -> None:
    world, spoken = small(tmp_path, OWN), [blend(LOW, LOW + 1, 0.5, 0, 2)]
    reddish = (200, 60, 60)  # fits Ann's voice, but is Dan's face
    world.archive.enrol("Dan", [world.file("dan.jpg", [face(reddish)])])
    one, other = (heard(world, screen, spoken) for screen in ([], [face(reddish, span=SPAN)]))
    (ann,) = (person.evidence for person in other.people if person.name == "Ann")
    assert ann.face is None and ann.face_to_voice is not None and ann.face_to_voice > 0.5
    assert odds(one, "Ann") == pytest.approx(odds(other, "Ann"))


def test_a_voice_makes_somebody_enrolled_by_face_alone_a_candidate_but_never_the_answer(tmp_path: Path) -> None:
    told = heard(small(tmp_path, OWN), [], [turn(4, 0, 2)])
    cid = told.people[0]
    assert (cid.name, cid.evidence.voice, told.answer) == ("Cid", None, "unknown")
    assert cid.evidence.voice_to_face == pytest.approx(0.98, abs=0.01)
    assert odds(told, "Cid") == pytest.approx(1 / 4.055, rel=1e-3) and cid.score > 0.99


def test_a_voice_that_fits_helps_a_known_face_that_is_one_of_two_on_screen(tmp_path: Path) -> None:
    screen = [face(GREEN, 0, span=SPAN), face((128, 128, 128), 1, span=SPAN)]
    assert heard(small(tmp_path, "elsewhere"), screen, [turn(4, 0, 2)]).answer == "unknown"
    assert heard(small(tmp_path, OWN), screen, [turn(4, 0, 2)]).answer == "Cid"


def test_whom_a_voice_leads_to_is_listened_for_too(tmp_path: Path) -> None:
    world = small(tmp_path, OWN)
    for number in range(30):  # nearer to the voice than Bob is, and more than are looked at closely
        world.archive.enrol(f"Person {number}", [world.file(f"{number}.wav", [], [blend(7, 5, 0.3, 0, 2 + number)])])
    (bob,) = (one for one in heard(world, [], [turn(5, 0, 2)]).people if one.name == "Bob")
    assert bob.evidence.voice is not None and bob.evidence.voice_to_face is not None


# Who is seen to speak


@dataclass
class Talking(World):
    """A world in whose films it is judged which face speaks: as the test says, in each turn alike."""

    speaking: Speaking | None = None
    judged: tuple[Speaking, ...] = ()  # of each turn by itself

    def extract(self, path: Path) -> Extraction:
        found = super().extract(path)
        if self.judged:
            return replace(found, speaking=self.judged)
        if self.speaking is None or not found.faces:
            return found
        return replace(found, speaking=(self.speaking,) * len(found.turns))

    def heard(
        self, speaking: Speaking | None, faces: Sequence[FaceTrack], turns: Sequence[SpeechTurn] = (turn(2, 0, 2),)
    ) -> WhoTurn:
        self.speaking = speaking
        told = self.engine.who(self.file("asked.mp4", faces, turns)).turns[0]
        self.speaking = None
        return told


RED_SPEAKS, RED_IS_MUTE = Speaking(0, 0.9, 0.05), Speaking(1, 0.9, 0.05)
NOBODY_SEEN, UNSURE = Speaking(0, 0.1, 0.9), Speaking(0, 0.5, 0.1)
TWO_OTHERS = (face(GREEN, 0, span=Span(0.0, 9.0)), face((128, 128, 128), 1, span=Span(0.0, 9.0)))
TWO = (face(RED, 0, span=SPAN), face(BLUE, 1, span=SPAN))


@pytest.fixture
def talking(tmp_path: Path) -> Talking:
    """Ann by face (red), Bob by voice (band 6), Cid by both (blue, band 4)."""
    world = Talking(tmp_path)
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    world.archive.enrol("Bob", [world.file("bob.wav", [], [turn(6, 0, 2)])])
    world.archive.enrol("Cid", [world.file("cid.mp4", [face(BLUE, span=SPAN)], [turn(4, 0, 2)])])
    return world


def test_somebody_enrolled_by_face_alone_is_named_in_company_when_it_is_their_face_that_speaks(
    talking: Talking,
) -> None:
    told = talking.heard(RED_SPEAKS, TWO)
    assert told.answer == "Ann" and told.people[0].probability == pytest.approx(0.9, abs=0.02)
    assert told.people[0].evidence.face == pytest.approx(0.9, abs=0.02) and told.people[0].evidence.voice is None
    assert (told.speaker, told.off_screen) == (SpeakingFace(0, 0.9), False)


def test_a_mute_face_counts_nothing(talking: Talking) -> None:
    told = talking.heard(RED_IS_MUTE, TWO)
    assert "Ann" not in [one.name for one in told.people]


def test_a_speaker_who_is_not_seen_takes_no_evidence_from_faces(talking: Talking) -> None:
    for speaking in (NOBODY_SEEN, Speaking(1, 0.4, 0.6)):
        told = talking.heard(speaking, TWO)
        assert (told.answer, told.speaker, told.off_screen) == ("unknown", None, True)
        assert all(one.evidence.face is None for one in told.people)


def test_somebody_enrolled_by_voice_alone_is_named_off_screen_and_on(talking: Talking) -> None:
    for speaking in (NOBODY_SEEN, Speaking(None, 0.0, 1.0), RED_SPEAKS):
        told = talking.heard(speaking, TWO, [turn(6, 0, 2)])
        assert told.answer == "Bob" and told.people[0].evidence.face is None


def test_a_face_that_speaks_counts_more_than_one_merely_on_screen(talking: Talking) -> None:
    spoken = [blend(4, 5, 0.6, 0, 2)]
    speaks, shown, mute = (talking.heard(one, TWO, spoken) for one in (RED_IS_MUTE, None, NOBODY_SEEN))
    assert odds(speaks, "Cid") > odds(shown, "Cid") > odds(mute, "Cid")
    assert odds(speaks, "Cid") / odds(mute, "Cid") == pytest.approx(4.055**0.9, rel=0.01)


def test_somebody_elses_speaking_face_speaks_against_a_voice_but_does_not_overrule_it(talking: Talking) -> None:
    surely, hardly = [turn(4, 0, 2)], [blend(4, 5, 0.45, 0, 2)]
    assert talking.heard(NOBODY_SEEN, TWO, hardly).answer == "Cid"
    assert talking.heard(Speaking(0, 0.9, 0.05), [face(GREEN, 0, span=SPAN)], hardly).answer == "unknown"
    told = talking.heard(RED_SPEAKS, TWO, surely)
    assert [one.name for one in told.people[:2]] == ["Cid", "Ann"]
    (cid,) = (one.evidence for one in told.people if one.name == "Cid")
    assert cid.voice is not None and cid.voice > 0.9 and cid.face is not None and cid.face < 0.01


def test_whoever_is_heard_is_looked_for_in_the_speaking_face_though_others_are_nearer_to_it(
    talking: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.probes.SHORTLIST", 1)
    nearest_to_ann = face((60, 200, 10), 0, span=SPAN)
    told = talking.heard(RED_SPEAKS, [nearest_to_ann], [blend(4, 5, 0.45, 0, 2)])
    (cid,) = (one.evidence.face for one in told.people if one.name == "Cid")
    assert cid is not None and cid < 0.01 and told.answer == "unknown"


def test_turns_of_one_speaker_that_two_faces_surely_speak_are_not_of_one_voice(talking: Talking) -> None:
    def answers(*probabilities: float) -> list[str]:
        judged = [Speaking(place, one, 0.0) for place, one in zip((1, 0, 1), probabilities, strict=True)]
        talking.judged = (*judged, Speaking(None, 0.0, 1.0))
        # the second turn sounds a little like Cid's; all four were taken for one speaker
        spoken = [turn(4, 0, 2), replace(blend(4, 5, 0.8), span=Span(2.0, 3.0)), turn(4, 3, 5), turn(4, 5, 6)]
        name = f"{probabilities}.mp4"
        return [one.answer for one in talking.engine.who(talking.file(name, TWO_OTHERS, spoken)).turns]

    assert answers(0.7, 0.7, 0.7) == ["Cid"] * 4
    assert answers(0.9, 0.9, 0.9) == ["Cid", "unknown", "Cid", "Cid"]
    assert answers(0.9, 0.9, 0.7) == ["Cid", "unknown", "Cid", "Cid"]


def test_what_is_left_of_an_unsure_judgement_goes_to_the_others_on_screen(talking: Talking) -> None:
    told = talking.heard(UNSURE, TWO, [blend(4, 5, 0.6, 0, 2)])
    evidence = {one.name: one.evidence.face for one in told.people}
    assert evidence["Ann"] == pytest.approx(0.5, abs=0.02) and evidence["Cid"] == pytest.approx(0.4, abs=0.02)


def test_sound_without_pictures_is_not_judged(talking: Talking) -> None:
    told = talking.heard(None, [], [turn(6, 0, 2)])
    assert (told.speaker, told.off_screen, told.overlap) == (None, None, [])


def test_overlaps_are_marked(talking: Talking) -> None:
    both = replace(turn(6, 0, 2), overlaps=(Span(0.5, 1.00004),))
    assert talking.heard(None, [], [both]).overlap == [(0.5, 1.0)]


# How many are enrolled


@pytest.mark.parametrize("modality", ["voice", "face"])
def test_who_is_named_among_few_is_unknown_among_many(tmp_path: Path, modality: str) -> None:
    world = Talking(tmp_path, speaking=Speaking(0, 0.9, 0.0))
    encoder, pair = world.encoders[f"{modality}_identity"], f"{modality}-{modality}"
    gallery = {"level": 0.01, "tail": {"share": 0.2, "start": 0.9, "scale": 0.2, "shape": 0.0}}
    numbers = encoder.calibration[pair]["identify"]["cosine"] | {"gallery": gallery}
    encoder.calibration = {pair: {"identify": {"cosine": numbers}}}

    def enrol(name: str, colour: tuple[int, int, int], band: int) -> None:
        files = {
            "voice": world.file(f"{name}.wav", [], [turn(band)]),
            "face": world.file(f"{name}.jpg", [face(colour)]),
        }
        world.archive.enrol(name, [files[modality]])

    enrol("Ann", RED, 2)
    # about 0.92 near to Ann in both modalities
    asked = world.file("asked.mp4", [face((200, 80, 10), span=SPAN)], [blend(2, 3, 0.42, 0, 2)])
    (few,) = world.engine.who(asked).turns
    for number in range(4):
        enrol(f"Person {number}", (10, 10, 200 + number), 4 + number)
    (many,) = world.engine.who(asked).turns
    assert (few.answer, many.answer) == ("Ann", "unknown")
