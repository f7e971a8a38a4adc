"""The people of one film: the face that speaks in a turn and that turn's voice, a whole track with a whole speaker.

Which face speaks was judged from mouths and sound for each turn by itself (:mod:`ingest.pairing`). Turns of one
speaker, who was told from the others by voice, support each other: two turns in which a face speaks with probability
p leave (1 − p)² for both being wrong. A speaker whom two faces surely speak is two people whose voices were taken for
one, as :mod:`search.who` sees it too. Two speakers whom one face surely speaks are one person if their voices say so;
otherwise the one that it speaks longer is its own, and the confidence goes down by what the other has.

Where people said whose a face or a turn is, mouths do not say otherwise: a face keeps no voice of somebody else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.ledger import Pairing
from search.archive import NO_SPAN
from search.people import learned_identity
from training.filmed import EnrolledSamples, Film, FilmedFace, FilmedTurn, Looks

VoicesAgree = Callable[[NDArray[np.float64], NDArray[np.float64]], bool]
"""Whether two points of voices may be one person's."""


@dataclass(frozen=True)
class MiningSettings:
    """How people are mined out of films.

    Args:
        least_confidence: a face and a voice that belong together less surely are not taken for a pair.
        surely_speaks: two faces that so surely speak turns of one speaker are two people.
        elsewhere: how sure it is that a turn of a speaker is theirs whose face is not seen in it.
        least_weight: a turn that is less surely the person's is left out.
        same_person: probability from which people of two films are taken for one.
        possibly_same: probability from which they are not put on different sides of a split.
        most_voice_log_odds: what voices can add to or take from what faces say of two people being one.
        measured: a person, and a turn of theirs, that is less surely theirs is learned from and not measured on.

    Raises:
        ValueError: a probability outside [0, 1], or thresholds in the wrong order.
    """

    least_confidence: float = 0.5
    surely_speaks: float = 0.8
    elsewhere: float = 0.8
    least_weight: float = 0.2
    same_person: float = 0.9
    possibly_same: float = 0.1
    most_voice_log_odds: float = 2.0
    measured: float = 0.7

    def __post_init__(self) -> None:
        shares = {name: value for name, value in vars(self).items() if name != "most_voice_log_odds"}
        wrong = {name: value for name, value in shares.items() if not 0 <= value <= 1}
        if wrong or self.possibly_same > self.same_person or not self.most_voice_log_odds >= 0:
            raise ValueError(
                f"probabilities lie in [0, 1], same_person is not below possibly_same and log-odds are 0 or more, "
                f"got {wrong or self}"
            )


@dataclass(frozen=True, eq=False)
class FilmPerson:
    """Somebody as one film shows them, or an enrolled person.

    Args:
        name: unique: of the film and the track, or the id of the enrolled person.
        faces: of the track; None if there are none.
        voices: of the turns; None for somebody who is not seen to speak.
        confidence: probability that face and voice are one person's; 1 for the enrolled, 0 without a voice.
        media: of the film; "" for an enrolled person.
        span: of the track, milliseconds; ``NO_SPAN`` for a photo.
        person: id of who is enrolled with these samples, or "".
        doubtful: evidence of turns that are learned from, but less surely theirs than one is measured on.
    """

    name: str
    faces: Looks | None
    voices: Looks | None
    confidence: float
    media: str = ""
    span: tuple[int, int] = (0, 0)
    person: str = ""
    doubtful: frozenset[str] = frozenset()

    def excludes(self, other: FilmPerson) -> bool:
        """Whether they surely are two people: two who are enrolled, or two faces of one film or photo at one time."""
        if self.person and other.person:
            return self.person != other.person
        if not self.media or self.media != other.media or self.name == other.name:
            return False
        return _at_one_time(self.span, other.span)


@dataclass(frozen=True, eq=False)
class _Part:
    """A speaker, or those of their turns that one face surely speaks, with the face.

    Args:
        track: number of the face.
        turns: the speaker's.
        support: seconds of them, times the probability that the face speaks.
        share: of all such support that faces have for this speaker.
    """

    track: int
    turns: Sequence[FilmedTurn]
    support: float
    share: float = 1.0

    @property
    def claims(self) -> list[Pairing]:
        """What was judged of the turns in which this face may speak."""
        return [one.pairing for one in self.turns if one.pairing is not None and one.pairing.track == self.track]

    @property
    def certainty(self) -> float:
        """Probability that the face speaks at least one of the turns."""
        return 1.0 - float(np.prod([1.0 - one.probability for one in self.claims]))


def people_of_film(film: Film, agree: VoicesAgree, settings: MiningSettings | None = None) -> list[FilmPerson]:
    """Everybody whose face a film shows, in order of their tracks, with their voice where they are seen to speak.

    Args:
        film: as the records have it.
        agree: whether two voices may be one.
        settings: default :class:`MiningSettings`.
    """
    settings = settings or MiningSettings()
    by_speaker: dict[int, list[FilmedTurn]] = defaultdict(list)
    for turn in film.turns:
        by_speaker[turn.speaker].append(turn)
    by_track: dict[int, list[_Part]] = defaultdict(list)
    for _, turns in sorted(by_speaker.items()):
        for part in _parts(turns, settings):
            by_track[part.track].append(part)
    return [_person(film, face, by_track.get(face.track, []), agree, settings) for face in film.faces]


def enrolled_person(samples: EnrolledSamples) -> FilmPerson:
    """Somebody who is enrolled: whoever enrolled them said whose the samples are."""
    return FilmPerson(learned_identity(samples.person), samples.faces, samples.voices, 1.0, person=samples.person)


def _at_one_time(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two spans of one medium overlap; all of a photo is of one time."""
    return one == other == NO_SPAN or (one[0] < other[1] and other[0] < one[1])


def _parts(turns: Sequence[FilmedTurn], settings: MiningSettings) -> list[_Part]:
    """The face that speaks a speaker's turns, or the faces that surely do."""
    support: dict[int, float] = defaultdict(float)
    sure: dict[int, list[FilmedTurn]] = defaultdict(list)
    for turn in turns:
        judged = turn.pairing
        if judged is not None and judged.track is not None:
            support[judged.track] += turn.seconds * judged.probability
            if judged.probability >= settings.surely_speaks:
                sure[judged.track].append(turn)
    if len(sure) > 1:
        return [_Part(track, mine, support[track]) for track, mine in sorted(sure.items())]
    total = sum(support.values())
    if not total:
        return []
    best = max(support, key=lambda track: (support[track], -track))
    return [_Part(best, turns, support[best], support[best] / total)]


def _person(
    film: Film, face: FilmedFace, parts: Sequence[_Part], agree: VoicesAgree, settings: MiningSettings
) -> FilmPerson:
    """A face with the voices that it speaks with, or without if it is not sure enough."""
    name = f"film_{film.media[:16]}_face_{face.track}"
    mute = FilmPerson(name, face.looks, None, 0.0, film.media, face.span, face.person)
    if not parts:
        return mute
    ordered = sorted(parts, key=lambda one: -one.support)
    main, points = ordered[0], [_voices(one.turns) for one in ordered]
    own = [part for part, point in zip(ordered, points, strict=True) if agree(points[0], point)]
    contested = sum(part.support for part in ordered)
    undisputed = main.share * sum(part.support for part in own) / max(contested, 1e-9)
    confidence = main.certainty * undisputed
    kept = [one for part in own for one in _kept(part, undisputed, settings)]
    person = _enrolled_as(film, face, [turn for turn, _ in kept])
    theirs = [(turn, sure) for turn, sure in kept if turn.person in ("", person)]
    if confidence < settings.least_confidence or not theirs or person is None:
        return mute
    voices = Looks.joined([turn.sound.weighed(sure) for turn, sure in theirs])
    doubtful = frozenset(turn.sound.evidence[0] for turn, sure in theirs if sure < settings.measured)
    looks = face.looks.weighed(confidence)
    return FilmPerson(name, looks, voices, confidence, film.media, face.span, person, doubtful)


def _enrolled_as(film: Film, face: FilmedFace, turns: Sequence[FilmedTurn]) -> str | None:
    """Who is enrolled with a face or with those of its turns that it is seen to speak; None where that is two people.

    So it is if two names were given, and if the name was given to another face that is seen at the same time.
    """
    seen = (turn for turn in turns if turn.pairing is not None and turn.pairing.track == face.track)
    names = {face.person, *(turn.person for turn in seen)} - {""}
    if len(names) > 1:
        return None
    others = (one for one in film.faces if one.track != face.track and _at_one_time(one.span, face.span))
    if not face.person and any(one.person in names for one in others):
        return None
    return next(iter(names), "")


def _voices(turns: Sequence[FilmedTurn]) -> NDArray[np.float64]:
    """The point of all that is said in some turns, by its length."""
    return Looks.joined([turn.sound.weighed(turn.seconds) for turn in turns]).centre


def _kept(part: _Part, undisputed: float, settings: MiningSettings) -> list[tuple[FilmedTurn, float]]:
    """The turns that are surely enough the person's, with how sure that is: less where others speak in them too."""
    kept = []
    for turn in part.turns:
        judged = turn.pairing
        if judged is None:
            continue
        # where the face is seen and mute, somebody else speaks who sounds the same
        away = settings.elsewhere * part.certainty * (1.0 - judged.probability)
        speaks = judged.probability if judged.track == part.track else away
        if (sure := undisputed * speaks * (1.0 - judged.overlapped)) >= settings.least_weight:
            kept.append((turn, sure))
    return kept
