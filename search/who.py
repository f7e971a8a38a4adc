"""Who speaks when: speech turns by voice, with the faces on screen and the shared space as further evidence.

Where mouths and sound were judged, a face weighs as much as it probably speaks: a mute one says nothing, a speaker
who is not seen takes no evidence from faces, and a speaking face that is somebody else's speaks against whom the
voice resembles. Otherwise the faces on screen share the weight of the one that may be speaking. What the shared
space says is reported always, and has weight only where its encoder was calibrated on people of the domain that is
asked about: that of the identity encoders, or of an archive that the file is in, or of the enrolled. How the kinds
of evidence are weighed against each other stands in :mod:`search.fusion`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoders.space import Embedding, Modality
from ingest.track import Extraction, Speaking, SpeechTurn
from search.answers import Candidate, SpeakingFace, WhoAnswer, WhoTurn
from search.fusion import Evidence, Face, Lead, Screen, is_off_screen
from search.people import UNKNOWN
from search.probes import Enrolled, PersonScore, Prober
from search.scores import NotCalibrated, Purpose, probability_of
from search.store import SHARED

# Candidates reported per turn.
MOST_CANDIDATES = 5
# Turns of one speaker that two faces so surely speak are two people whose voices were taken for one.
SURELY_SPEAKS = 0.8


@dataclass(frozen=True, eq=False)
class _Voices:
    """The voices of a file: which one is heard in each turn, and the turns that tell how each one sounds.

    Args:
        heard: one number per turn, in their order.
        turns: by that number.
    """

    heard: Sequence[int]
    turns: Mapping[int, Sequence[SpeechTurn]]

    @classmethod
    def of(cls, extraction: Extraction) -> _Voices:
        """One for each speaker, and one for each face that surely speaks where one speaker has several."""
        speakers = [turn.speaker for turn in extraction.turns]
        faces = [_surely(speaking) for speaking in extraction.speaking] or [None] * len(speakers)
        several = {
            speaker
            for speaker in speakers
            if len({face for one, face in zip(speakers, faces, strict=True) if one == speaker} - {None}) > 1
        }
        keys = [(one, face if one in several else None) for one, face in zip(speakers, faces, strict=True)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        turns = {
            number: [
                turn
                for turn, key in zip(extraction.turns, keys, strict=True)
                # a turn that no face surely speaks may be by any of them
                if key == (speaker, face) or (face is None and turn.speaker == speaker)
            ]
            for (speaker, face), number in numbers.items()
        }
        return cls([numbers[key] for key in keys], turns)

    def embed(self, prober: Prober, space: str = "") -> dict[int, Embedding]:
        """The point of each voice that an encoder can use, in the identity space of voices by default."""
        points = {number: prober.embed_turns(mine, space) for number, mine in self.turns.items()}
        return {number: point for number, point in points.items() if point is not None}


def _surely(speaking: Speaking) -> int | None:
    """The face that surely speaks, if there is one."""
    return speaking.track if speaking.probability >= SURELY_SPEAKS else None


@dataclass(frozen=True)
class _Across:
    """What the shared space says about a file.

    Args:
        weighs: whether it was calibrated on people of the domain asked about.
        voices: point of each voice in the shared space; none without an encoder or without calibration.
        faces: point of each face track there, by its place in the extraction.
        led: people whose enrolled faces are near to a voice of the file; nobody unless it weighs.
        heard: by voice, the people whose enrolled faces were compared.
        seen: by face track, the people whose enrolled voices were compared.
    """

    weighs: bool = False
    voices: Mapping[int, Embedding] = field(default_factory=dict)
    faces: Mapping[int, Embedding] = field(default_factory=dict)
    led: frozenset[str] = frozenset()
    heard: Mapping[int, Mapping[str, PersonScore]] = field(default_factory=dict)
    seen: Mapping[int, Mapping[str, PersonScore]] = field(default_factory=dict)

    def leads(self, voice: int, screen: Screen) -> dict[str, Lead]:
        """By person, what it says of a turn."""
        leads = {person: Lead(score) for person, score in self.heard.get(voice, {}).items()}
        for place, speaks in screen.speaks.items():
            for person, score in self.seen.get(place, {}).items():
                old = leads.get(person, Lead())
                if old.face_to_voice is None or old.face_to_voice.score < score.score:
                    leads[person] = Lead(old.voice_to_face, score, speaks)
        return leads


@dataclass(frozen=True, eq=False)
class _File:
    """All that is known about a file: its voices and faces with who is near them, and what the shared space says."""

    extraction: Extraction
    voices: Mapping[int, Mapping[str, PersonScore]]
    faces: Sequence[Face]
    across: _Across

    def evidence(self, turn: SpeechTurn, voice: int, speaking: Speaking | None) -> dict[str, Evidence]:
        """By person, what speaks for them during a turn."""
        heard = self.voices.get(voice, {})
        screen = Screen.of(turn, self.extraction.faces, speaking)
        seen = screen.people(self.faces, heard)
        leads = self.across.leads(voice, screen)
        asked = [*heard, *seen, *(person for person in leads if person in self.across.led)]
        return {
            person: Evidence(heard.get(person), seen.get(person), leads.get(person, Lead()), self.across.weighs)
            for person in dict.fromkeys(asked)
        }


def who(prober: Prober, path: Path) -> WhoAnswer:
    """Every speech turn of a file with the enrolled people who may be speaking.

    A speaker's turns are judged together: the answer to a short turn rests on all that this voice says in
    the file. But turns that two faces surely speak are not of one voice, whatever they sound like.

    Args:
        prober: reads files and knows the enrolled.
        path: film or sound.

    Raises:
        MediaError: the file cannot be read. StoreError: the index does not answer.
    """
    extraction = prober.extract(path)
    if not extraction.turns:
        return WhoAnswer([])
    voices = _Voices.of(extraction)
    file = _compared(prober, extraction, voices)
    names = prober.names()
    judged: Sequence[Speaking | None] = extraction.speaking or [None] * len(extraction.turns)
    return WhoAnswer(
        [
            _answer(turn, speaking, file.evidence(turn, voice, speaking), names)
            for turn, voice, speaking in zip(extraction.turns, voices.heard, judged, strict=True)
        ]
    )


def _compared(prober: Prober, extraction: Extraction, voices: _Voices) -> _File:
    """Hold every voice and face of a file against the enrolled people who may be theirs."""
    among = prober.enrolled()
    points = {place: point for place, face in enumerate(extraction.faces) if (point := prober.embed_face(face))}
    near = {place: prober.shortlist(point, among=among) for place, point in points.items()}
    across = _encode_across(prober, extraction, voices, among)
    # whoever is seen or led to is listened for too: no voice in the evidence must mean that none is enrolled
    known = across.led | {people[0].person for people in near.values() if people}
    listened = {
        voice: {one.person: one for one in prober.shortlist(point, known, among=among)}
        for voice, point in voices.embed(prober).items()
    }
    heard = frozenset(person for people in listened.values() for person in people)
    # and whoever is heard is looked for in every face: that it is somebody else's must be known too
    also = prober.compare(points, heard, Modality.FACE, among) if extraction.speaking else {}
    faces = [
        Face(place, point, {one.person: one for one in near[place]} | also.get(place, {}))
        for place, point in points.items()
    ]
    return _File(extraction, listened, faces, _compare_across(prober, across, known | heard, among))


def _encode_across(prober: Prober, extraction: Extraction, voices: _Voices, among: Enrolled) -> _Across:
    """Points of a file's voices and faces in the shared space, if an encoder with a calibration serves it."""
    if prober.shared is None:
        return _Across()
    try:
        calibration = prober.calibration(SHARED, (Modality.VOICE, Modality.FACE), Purpose.IDENTIFY)
    except NotCalibrated:
        return _Across()
    heard = voices.embed(prober, SHARED)
    seen = {place: prober.embed_face(track, SHARED) for place, track in enumerate(extraction.faces)}
    faces = {place: point for place, point in seen.items() if point is not None}
    weighs = prober.asked_about(str(calibration.provenance.get("domain")), extraction.media)
    wanted = heard.values() if weighs else ()
    near = [prober.shortlist(point, want=Modality.FACE, among=among) for point in wanted]
    return _Across(weighs, heard, faces, frozenset(one.person for people in near for one in people))


def _compare_across(prober: Prober, across: _Across, people: Collection[str], among: Enrolled) -> _Across:
    """The same with the people compared: voices with their enrolled faces, faces with their enrolled voices."""
    heard = prober.compare(across.voices, people, Modality.FACE, among)
    return replace(across, heard=heard, seen=prober.compare(across.faces, people, Modality.VOICE, among))


def _answer(
    turn: SpeechTurn, speaking: Speaking | None, people: Mapping[str, Evidence], names: Mapping[str, str]
) -> WhoTurn:
    judged = []
    for person, evidence in people.items():
        if person in names:  # else forgotten while this was being answered
            probability = probability_of(evidence.log_odds)
            judged.append((evidence.log_odds, Candidate(names[person], evidence.score, probability, evidence.kinds())))
    judged.sort(key=lambda one: (-one[0], -one[1].score, one[1].name))
    best = judged[0] if judged else None
    return WhoTurn(
        start=round(turn.span.start, 3),
        end=round(turn.span.end, 3),
        people=[one for _, one in judged[:MOST_CANDIDATES]],
        answer=best[1].name if best and best[0] >= 0 else UNKNOWN,
        speaker=_speaker(speaking),
        off_screen=None if speaking is None else is_off_screen(speaking),
        overlap=[(round(span.start, 3), round(span.end, 3)) for span in turn.overlaps],
    )


def _speaker(speaking: Speaking | None) -> SpeakingFace | None:
    if speaking is None or speaking.track is None or is_off_screen(speaking):
        return None
    return SpeakingFace(speaking.track, round(speaking.probability, 4))
