"""The read side: a probe becomes hits, a pair a verdict, a line-up a match.

Same modality is asked in its identity space. The other modality is reached over the *bridge*: people
enrolled with both, found by the probe's modality and followed to the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.encoder import Encoder
from encoders.space import Embedding, Modality, SpaceMismatch
from search.answers import FindAnswer, FoundHit, MatchAnswer, MatchCandidate, VerifyAnswer, WhoAnswer
from search.probes import OVERFETCH, Probe, Prober, ProbeUnusable, centre
from search.scores import Purpose, Similarity, probability_of, similarity
from search.store import MOST_HITS, Filter, Hit, Store
from search.who import who

# Nobody less likely than this is followed over the bridge.
LEAST_BRIDGE_PROBABILITY = 0.05
BRIDGE = "bridge"
NO_SHARED_ENCODER = (
    "no shared-space encoder is installed: hits of the other modality come only through people enrolled with both"
)


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

    def find(self, path: Path, want: Modality, top: int = 10) -> FindAnswer:
        """Enrolled samples and archive tracks of modality ``want`` that belong to whom a file shows.

        Args:
            path: film, sound or photo; the largest face and the longest speaker are the probe.
            want: face or voice.
            top: most hits, 1 to 1000.

        Raises:
            MediaError: the file cannot be read. ProbeUnusable: it shows no face and holds no speech.
            StoreError: the index does not answer.
        """
        _check_top(top)
        probe = self._prober.probe(path)
        same = probe.of(want)
        return self.find_vector(_only(probe) if same is None else same, want, top)

    def find_vector(self, probe: Embedding, want: Modality, top: int = 10) -> FindAnswer:
        """The same with a ready vector. Raises SpaceMismatch if no serving encoder has its space."""
        _check_top(top)
        self.encoder_of(probe)
        if probe.modality is want:
            return FindAnswer(self._same_modality(probe, top))
        return FindAnswer(self._over_bridge(probe, want, top), NO_SHARED_ENCODER)

    def encoder_of(self, probe: Embedding) -> Encoder:
        """The serving encoder of an embedding's space. Raises SpaceMismatch."""
        for encoder in self._encoders.values():
            if encoder.space.digest == probe.space.digest:
                return encoder
        raise SpaceMismatch(f"no serving encoder has the space {probe.space.name} ({probe.space.digest[:12]})")

    def _same_modality(self, probe: Embedding, top: int) -> list[FoundHit]:
        calibration = self._prober.calibration(probe.space.name, probe.modality, Purpose.VERIFY)
        names = self._prober.names()
        hits = self._tracks(probe, top, names)
        return [self._hit(hit, names, calibration.probability(hit.score)) for hit in hits]

    def _tracks(self, probe: Embedding, top: int, names: Mapping[str, str]) -> list[Hit]:
        """The best row of each track, best first."""
        rows = min(MOST_HITS, top * OVERFETCH)
        (hits,) = self._store.search([probe], rows, want=probe.modality)
        best: dict[tuple[object, ...], Hit] = {}
        for hit in hits:
            if hit.row.person and hit.row.person not in names:
                continue  # somebody who is being forgotten
            # a face track is one face however many looks at it are stored; each speech turn is its own
            row = hit.row
            track = (row.media, row.track, row.span_ms if row.embedding.modality is Modality.VOICE else None)
            best.setdefault(track, hit)
        return list(best.values())[:top]

    def _over_bridge(self, probe: Embedding, want: Modality, top: int) -> list[FoundHit]:
        """From a probe to the people enrolled with both modalities, and on to what is near them."""
        names = self._prober.names()
        target = self._prober.encoder_for(want)
        calibration = self._prober.calibration(target.space.name, want, Purpose.IDENTIFY)
        best: dict[str, FoundHit] = {}
        for person in self._prober.shortlist(probe):
            first = probability_of(person.log_odds)
            if first < LEAST_BRIDGE_PROBABILITY:
                continue
            rows = list(self._store.rows(target.space, Filter(persons=(person.person,))))
            if not rows:
                continue
            for hit in self._tracks(centre(rows), top, names):
                # both steps must hold, so their probabilities multiply and the weaker score speaks
                probability = first * calibration.probability(hit.score)
                found = self._hit(hit, names, probability, score=min(person.score, hit.score), space=BRIDGE)
                if hit.row.key not in best or best[hit.row.key].probability < probability:
                    best[hit.row.key] = found
        return sorted(best.values(), key=lambda hit: (-hit.probability, -hit.score, hit.evidence))[:top]

    def _hit(
        self,
        hit: Hit,
        names: Mapping[str, str],
        probability: float,
        *,
        score: float | None = None,
        space: str = "",
    ) -> FoundHit:
        row = hit.row
        start, end = (None, None) if row.span_ms[0] < 0 else (row.span_ms[0] / 1000, row.span_ms[1] / 1000)
        return FoundHit(
            space=space or row.embedding.space.name, modality=str(row.embedding.modality), media=row.media,
            start=start, end=end, person=names.get(row.person), score=hit.score if score is None else score,
            probability=probability, evidence=row.evidence,
        )  # fmt: skip

    # ---- verify and match -----------------------------------------------------------------------

    def verify(self, a: Path, b: Path, kind: str = Similarity.COSINE) -> VerifyAnswer:
        """Whether two files show one person: by face where both show one, else by voice, else over the bridge.

        Two films are compared in both modalities and the surer verdict is given.

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
        return MatchAnswer(listed, str(candidates[best]))

    def _compare(self, a: Probe, b: Probe, kind: Similarity) -> VerifyAnswer:
        verdicts = []
        for modality in Modality:
            left, right = a.of(modality), b.of(modality)
            if left is not None and right is not None:
                calibration = self._prober.calibration(left.space.name, modality, Purpose.VERIFY, kind)
                score = similarity(left, right, kind)
                verdicts.append(
                    VerifyAnswer(
                        score,
                        calibration.probability(score),
                        score >= calibration.threshold,
                        calibration.threshold,
                        left.space.name,
                    )
                )
        if verdicts:
            return max(verdicts, key=lambda verdict: abs(verdict.probability - 0.5))
        return self._compare_over_bridge(a, b)

    def _compare_over_bridge(self, a: Probe, b: Probe) -> VerifyAnswer:
        """A face and a voice are one person's if they are one enrolled person's."""
        left, right = _only(a), _only(b)
        here, there = self._prober.shortlist(left), self._prober.shortlist(right)
        # two strangers to everybody enrolled are no evidence of being two people
        recognised = any(near and near[0].log_odds >= 0 for near in (here, there))
        others = {person.person: person for person in there}
        joint = [
            (probability_of(person.log_odds) * probability_of(others[person.person].log_odds),
             min(person.score, others[person.person].score))
            for person in here if person.person in others
        ]  # fmt: skip
        if not joint or not recognised:
            raise ProbeUnusable(
                f"{a.path} and {b.path}: a face and a voice can only be compared through somebody enrolled with "
                "both, or by a shared-space encoder, and neither is there: enrol people with both, or train one"
            )
        probability, score = max(joint)
        return VerifyAnswer(score, probability, probability >= 0.5, 0.5, BRIDGE)


def _only(probe: Probe) -> Embedding:
    embedding = probe.voice if probe.face is None else probe.face
    if embedding is None:
        raise ProbeUnusable(f"{probe.path}: nothing to compare")
    return embedding


def _check_top(top: int) -> None:
    if not 1 <= top <= 1000:
        raise ValueError(f"top must lie between 1 and 1000, got {top}")
