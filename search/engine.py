"""The read side: a probe becomes hits, a pair a verdict, a line-up a match.

Same modality is asked in its identity space. The other modality is reached in two ways: in the *shared
space*, where a face and a voice of one person are near, and over the *bridge*: people enrolled with both,
found by the probe's modality and followed to the other one. Their results meet as probabilities only. What
the shared space finds is a lead, never by itself a name, and answers that rest on it say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.encoder import Encoder
from encoders.probe_centres import asking
from encoders.space import Embedding, Modality, SpaceMismatch
from search.answers import FindAnswer, FoundHit, MatchAnswer, MatchCandidate, VerifyAnswer, WhoAnswer
from search.probes import OVERFETCH, PersonScore, Probe, Prober, ProbeUnusable, centre
from search.scores import NotCalibrated, Purpose, Similarity, probability_of, similarity
from search.store import EVERYTHING, MOST_HITS, SHARED, Entry, Filter, Hit, Store
from search.who import who

# Nobody less likely than this is followed over the bridge.
LEAST_BRIDGE_PROBABILITY = 0.05
BRIDGE = "bridge"
NO_SHARED_ENCODER = (
    "no shared-space encoder is installed: hits of the other modality come only through people enrolled with both"
)
IDENTITY_VECTOR = (
    "a vector of an identity space reaches the other modality only through people enrolled with both: "
    "ask with a file, or with a vector of the shared space"
)
NO_PROBABILITIES = (
    "it is not calibrated for this comparison: its hits have no probability and stand where an even bet would"
)
Track = tuple[object, ...]


class Engine:
    """Answers questions about files.

    Args:
        prober: reads probes and knows the enrolled.
        encoders: serving encoders by the name of their space.
        store: the index.
    """

    def __init__(self, prober: Prober, encoders: Mapping[str, Encoder], store: Store) -> None:
        self._prober = prober
        self._encoders = encoders
        self._store = store

    def who(self, path: Path) -> WhoAnswer:
        """Who speaks when in a file: see :func:`search.who.who`. Raises MediaError, StoreError."""
        return who(self._prober, path)

    # ---- find ---------------------------------------------------------------------------------

    def find(self, path: Path, want: Modality, top: int = 10, where: Filter = EVERYTHING) -> FindAnswer:
        """Enrolled samples and archive tracks of modality ``want`` that belong to whom a file shows.

        Args:
            path: film, sound or photo; the largest face and the longest speaker are the probe.
            want: face or voice.
            top: most hits, 1 to 1000.
            where: which rows may be hits; over the bridge, the people on it are those all the same.

        Raises:
            MediaError: the file cannot be read. ProbeUnusable: it shows no face and holds no speech.
            StoreError: the index does not answer.
        """
        _check_top(top)
        probe = self._prober.probe(path)
        same = probe.of(want)
        if same is None:
            return self._across(probe, want, top, where)
        return FindAnswer(self._same_modality(same, top, where))

    def find_vector(self, probe: Embedding, want: Modality, top: int = 10, where: Filter = EVERYTHING) -> FindAnswer:
        """The same with a ready vector: of an identity space, or of the shared space in either modality.

        Raises SpaceMismatch if no serving encoder has its space.
        """
        _check_top(top)
        self.encoder_of(probe)
        if probe.space.name == SHARED:
            leads = self._in_shared(probe, want, top, where)
            return FindAnswer(_best([leads], top), self._note_of_hits(probe.modality, want))
        if probe.modality is want:
            return FindAnswer(self._same_modality(probe, top, where))
        note = NO_SHARED_ENCODER if self._prober.shared is None else IDENTITY_VECTOR
        return FindAnswer(_best([self._over_bridge(probe, want, top, where)], top), note)

    def encoder_of(self, probe: Embedding) -> Encoder:
        """The serving encoder of an embedding's space. Raises SpaceMismatch."""
        for encoder in self._encoders.values():
            if encoder.space.digest == probe.space.digest:
                return encoder
        raise SpaceMismatch(f"no serving encoder has the space {probe.space.name} ({probe.space.digest[:12]})")

    def _same_modality(self, probe: Embedding, top: int, where: Filter) -> list[FoundHit]:
        calibration = self._prober.calibration(probe.space.name, (probe.modality,) * 2, Purpose.VERIFY)
        hits, names = self._tracks(probe, probe.modality, top, where)
        return [self._hit(hit, names, calibration.probability(hit.score)) for hit in hits.values()]

    def _across(self, probe: Probe, want: Modality, top: int, where: Filter) -> FindAnswer:
        """From a file that shows only the other modality: in the shared space and over the bridge."""
        known, point = probe.of(want.other), probe.shared.get(want.other)
        if known is None and point is None:
            raise ProbeUnusable(f"{probe.path}: shows nothing from which a {want} can be found: choose another file")
        found = [self._over_bridge(known, want, top, where)] if known is not None else []
        if self._prober.shared is None:
            return FindAnswer(_best(found, top), NO_SHARED_ENCODER)
        if point is not None:
            found.append(self._in_shared(point, want, top, where))
        return FindAnswer(_best(found, top), self._note_of_hits(want.other, want))

    def _tracks(
        self, probe: Embedding, want: Modality, top: int, where: Filter
    ) -> tuple[dict[Track, Hit], dict[str, str]]:
        """The best row of each of the nearest tracks, best first, and the names of the people among them.

        A track has several rows, so more are asked for than tracks are wanted: at first a few more, then again four
        times as many while that gave too few tracks.
        """
        most = min(MOST_HITS, top * OVERFETCH)
        rows = min(most, top)
        only = self._encoders[probe.space.name].modalities == {want}
        while True:
            (hits,) = self._store.search([probe], rows, want=None if only else want, where=where)
            names = self._prober.names({hit.row.person for hit in hits} - {""})
            best: dict[Track, Hit] = {}
            for hit in hits:
                if hit.row.person and hit.row.person not in names:
                    continue  # somebody who is being forgotten
                best.setdefault(_track(hit.row), hit)
            if len(best) >= top or len(hits) < rows or rows >= most:
                return dict(list(best.items())[:top]), names
            rows = min(most, 4 * rows)

    def _in_shared(self, probe: Embedding, want: Modality, top: int, where: Filter) -> dict[Track, FoundHit]:
        """Tracks near a point of the shared space, by its cosine; without its centre where it asks for the other."""
        asked = probe if probe.modality is want else asking(probe, self._encoders[SHARED].probe_centres)
        hits, names = self._tracks(asked, want, top, where)
        found = {}
        for track, hit in hits.items():
            found[track] = self._hit(hit, names, self._shared_probability(hit.score, probe.modality, want))
        return found

    def _shared_probability(self, score: float, one: Modality, other: Modality) -> float | None:
        """Probability of a hit ``other`` of a probe ``one`` in the shared space; None where that is not calibrated."""
        centred = one is not other and one in self._encoders[SHARED].probe_centres
        try:
            purpose = Purpose.FIND if centred else Purpose.VERIFY
            return self._prober.calibration(SHARED, (one, other), purpose).probability(score)
        except NotCalibrated:
            return None

    def _note_of_hits(self, one: Modality, other: Modality) -> str:
        """What must be said with hits ``other`` of a probe ``one``."""
        note = self._lead_note()
        known = self._prober.shared is None or self._shared_probability(1.0, one, other) is not None
        return note if known else f"{note}; {NO_PROBABILITIES}"

    def _lead_note(self) -> str:
        """What must be said with every answer that rests on the shared space."""
        encoder = self._prober.shared
        if encoder is None:
            return NO_SHARED_ENCODER
        return (
            f"hits in the shared space are leads, never a name by themselves; its encoder is for {encoder.domain}, "
            f"trained on {encoder.trained_on}"
        )

    def _over_bridge(self, probe: Embedding, want: Modality, top: int, where: Filter) -> dict[Track, FoundHit]:
        """From a probe to the people enrolled with both modalities, and on to what is near them."""
        target = self._prober.encoder_for(want)
        calibration = self._prober.calibration(target.space.name, (want, want), Purpose.IDENTIFY)
        best: dict[Track, FoundHit] = {}
        for person in self._prober.shortlist(probe, among=self._prober.enrolled()):
            first = probability_of(person.log_odds)
            if first < LEAST_BRIDGE_PROBABILITY:
                continue
            rows = list(self._store.rows(target.space, Filter(persons=(person.person,))))
            if not rows:
                continue
            hits, names = self._tracks(centre(rows), want, top, where)
            for track, hit in hits.items():
                # both steps must hold, so their probabilities multiply and the weaker score speaks
                probability = first * calibration.probability(hit.score)
                found = self._hit(hit, names, probability, score=min(person.score, hit.score), space=BRIDGE)
                if track not in best or _order(found) < _order(best[track]):
                    best[track] = found
        return best

    def _hit(
        self,
        hit: Hit,
        names: Mapping[str, str],
        probability: float | None,
        *,
        score: float | None = None,
        space: str = "",
    ) -> FoundHit:
        row = hit.row
        start, end = (None, None) if row.span_ms[0] < 0 else (row.span_ms[0] / 1000, row.span_ms[1] / 1000)
        return FoundHit(
            space=space or row.space.name, modality=str(row.modality), media=row.media,
            start=start, end=end, person=names.get(row.person), score=hit.score if score is None else score,
            probability=probability, evidence=row.evidence,
        )  # fmt: skip

    # ---- verify and match -----------------------------------------------------------------------

    def verify(self, a: Path, b: Path, kind: str = Similarity.COSINE) -> VerifyAnswer:
        """Whether two files show one person: by face where both show one, or by voice, else across modalities.

        Two films are compared in both modalities and the surer verdict is given. A face and a voice are compared
        over the bridge if somebody enrolled is recognised in one of them, else in the shared space.

        Raises:
            MediaError, ProbeUnusable, StoreError; NotCalibrated for a similarity without calibration;
            ValueError for an unknown similarity.
        """
        return self._compare(self._prober.probe(a), self._prober.probe(b), Similarity(kind))

    def match(self, probe: Path, candidates: Sequence[Path], kind: str = Similarity.COSINE) -> MatchAnswer:
        """Which of the candidates shows the person of the probe (1:N). Raises as ``verify`` does."""
        if not candidates:
            raise ValueError("a match needs at least one candidate")
        asked = self._prober.probe(probe)
        verdicts = [self._compare(asked, self._prober.probe(path), Similarity(kind)) for path in candidates]
        best = max(range(len(verdicts)), key=lambda i: (verdicts[i].probability, verdicts[i].score))
        listed = [
            MatchCandidate(str(path), verdict.score, verdict.probability)
            for path, verdict in zip(candidates, verdicts, strict=True)
        ]
        note = next((verdict.note for verdict in verdicts if verdict.note), None)
        return MatchAnswer(listed, str(candidates[best]), note)

    def _compare(self, a: Probe, b: Probe, kind: Similarity) -> VerifyAnswer:
        verdicts = []
        for modality in Modality:
            left, right = a.of(modality), b.of(modality)
            if left is not None and right is not None:
                verdicts.append(self._verdict(left, right, kind))
        if verdicts:
            return max(verdicts, key=lambda verdict: abs(verdict.probability - 0.5))
        return self._compare_over_bridge(a, b) or self._compare_in_shared(a, b, kind)

    def _verdict(self, left: Embedding, right: Embedding, kind: Similarity, note: str | None = None) -> VerifyAnswer:
        """Two points of one space, by its operating threshold."""
        name = left.space.name
        calibration = self._prober.calibration(name, (left.modality, right.modality), Purpose.VERIFY, kind)
        score, threshold = similarity(left, right, kind), calibration.threshold
        return VerifyAnswer(score, calibration.probability(score), score >= threshold, threshold, name, note)

    def _compare_over_bridge(self, a: Probe, b: Probe) -> VerifyAnswer | None:
        """A face and a voice are one person's if they are one enrolled person's; None if that says nothing."""
        left, right = _only(a), _only(b)
        if left is None or right is None:
            return None
        here = self._prober.shortlist(left)
        there = self._prober.shortlist(right, also=_recognised(here))
        if missing := _recognised(there) - {person.person for person in here}:
            here = self._prober.shortlist(left, also=missing)
        # two strangers to everybody enrolled are no evidence of being two people, nor is somebody recognised
        # in one of them who is not enrolled with the other modality
        known = _recognised(here) | _recognised(there)
        others = {person.person: person for person in there}
        joint = [
            (probability_of(person.log_odds) * probability_of(others[person.person].log_odds),
             min(person.score, others[person.person].score))
            for person in here if person.person in others and person.person in known
        ]  # fmt: skip
        if not joint:
            return None
        probability, score = max(joint)
        return VerifyAnswer(score, probability, probability >= 0.5, 0.5, BRIDGE)

    def _compare_in_shared(self, a: Probe, b: Probe, kind: Similarity) -> VerifyAnswer:
        """A face and a voice by their cosine in the shared space: a lead."""
        for modality in Modality:
            left, right = a.shared.get(modality), b.shared.get(modality.other)
            if left is not None and right is not None:
                return self._verdict(left, right, kind, self._lead_note())
        raise ProbeUnusable(
            f"{a.path} and {b.path}: a face and a voice can only be compared through somebody enrolled with both, "
            "or by a shared-space encoder that can use them, and neither is there: enrol people with both, "
            "or choose a shared-space encoder with `visavox models use`"
        )


def _only(probe: Probe) -> Embedding | None:
    """The one point of a file that shows only a face or only a voice, in its identity space."""
    return probe.voice if probe.face is None else probe.face


def _recognised(people: Sequence[PersonScore]) -> set[str]:
    return {person.person for person in people if person.log_odds >= 0}


def _track(row: Entry) -> Track:
    """What a row is a sample of: a face track is one face however many looks at it are stored, each turn its own."""
    span = row.span_ms if row.modality is Modality.VOICE else None
    return row.media, row.modality, row.track, span


def _order(hit: FoundHit) -> tuple[float, float, str]:
    """Best first; a hit of unknown probability stands as an even bet, or unlikely ones would hide it."""
    return -(0.5 if hit.probability is None else hit.probability), -hit.score, hit.evidence


def _best(found: Sequence[Mapping[Track, FoundHit]], top: int) -> list[FoundHit]:
    """Hits of several ways merged by probability, the best one of each track."""
    best: dict[Track, FoundHit] = {}
    for hits in found:
        for track, hit in hits.items():
            if track not in best or _order(hit) < _order(best[track]):
                best[track] = hit
    return sorted(best.values(), key=_order)[:top]


def _check_top(top: int) -> None:
    if not 1 <= top <= 1000:
        raise ValueError(f"top must lie between 1 and 1000, got {top}")
