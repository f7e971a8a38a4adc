"""A protocol folder for the test people of any corpus, so that one evaluator measures on them all.

The lists are drawn by a stated seed from a few samples of everybody, and are of the published form (see
:mod:`search.protocols`). The media are links ``<identity>/voice_00001.wav`` to the corpus's own files, because a
path in a list begins with the identity that it shows; a stretch of a sound is cut out. Published lists of a corpus
are another thing: `visavox evaluate --protocol` reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from encoders.space import Modality
from ingest.recording import write_flac
from ingest.samples import read_voice
from training.corpora.lists import SPLITS_FILE
from training.corpora.manifest import CorpusError, Manifest, Sample, Split, media_digest

MOST_SAMPLES = 20
"""Of each modality of each person, spread over their videos: more say little that is new."""
MOST_CANDIDATES = 10
ROUNDS = 5
"""Matching trials of each person and direction."""
_KINDS = {Modality.VOICE: "wav", Modality.FACE: "jpg"}
_HEADER = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"

Shown = Mapping[Modality, Mapping[str, Sequence[str]]]
"""Names of samples by modality and person."""


def write_trials(manifest: Manifest, folder: Path, seed: int = 0) -> Path:
    """Write a protocol folder for a manifest's people, who are its test people.

    Args:
        manifest: of a test split, with everybody's sex.
        folder: where it goes; replaced unless it is of the same samples and seed.
        seed: of the lists.

    Returns:
        The folder.

    Raises:
        CorpusError: nobody says of what sex somebody is, or no two people are of one sex.
        OSError: it cannot be written.
        MediaError, NoSample: a stretch cannot be cut out of its sound.
    """
    digest = hashlib.sha256(f"{media_digest(manifest)} {seed} {MOST_SAMPLES} {ROUNDS}".encode()).hexdigest()
    about = {
        "format": 1, "name": f"{manifest.name}, test, lists of seed {seed}", "domain": manifest.domain,
        "media": "media", "digest": digest,
    }  # fmt: skip
    if _is_of(folder, digest):
        return folder
    groups = _groups(manifest)
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    shown = _link(manifest, staging / "media")
    _write_people(manifest, staging)
    for modality, kind in _KINDS.items():
        rows = [f"{person}\t{path}" for person, paths in shown[modality].items() for path in paths]
        _write(staging / f"retrieval/{kind}_all.csv", [f"person\t{kind}", *rows])
    for place, (kind, some) in enumerate(groups.items()):
        random = np.random.default_rng([seed, place])
        numbers = {name: number for number, name in enumerate(manifest.identities, 1)}
        pairs = [
            f"{row},{numbers[one]},{numbers[other]},{int(one == other)},{voice},{face}"
            for row, (one, other, voice, face) in enumerate(draw_pairs(some, shown, random), 1)
        ]
        written = "random" if kind == "U" else kind
        _write(staging / f"veriflist/veriflist_test_{written}_unseenunheard.txt", [_HEADER, *pairs])
        for direction, probe in (("v2f", Modality.VOICE), ("f2v", Modality.FACE)):
            rows = [" ".join(one) for one in draw_matching(some, shown, probe, random)]
            _write(staging / f"matching/matching_{direction}_{kind}.csv", rows)
    (staging / "protocol.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    return folder


def _is_of(folder: Path, digest: str) -> bool:
    try:
        about = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(about.get("digest") == digest)


def _groups(manifest: Manifest) -> dict[str, list[list[str]]]:
    """Who may be taken for whom: anybody, and only people of one sex."""
    sexes = manifest.sexes
    if unknown := sorted(name for name, sex in sexes.items() if not sex):
        raise CorpusError(
            f"{manifest.name}: nobody says whether {unknown[0]} is f or m, so pairs of one sex cannot be drawn: give "
            "the sex of every test person"
        )
    alike = [[name for name in manifest.identities if sexes[name] == sex] for sex in ("f", "m")]
    alike = [some for some in alike if len(some) > 1]
    if not alike:
        raise CorpusError(f"{manifest.name}: no two test people are of one sex, so pairs of one sex cannot be drawn")
    return {"U": [list(manifest.identities)], "G": alike}


def _link(manifest: Manifest, media: Path) -> dict[Modality, dict[str, list[str]]]:
    """Links to some samples of everybody; their paths by person."""
    mine: dict[Modality, dict[str, list[Sample]]] = {modality: {} for modality in Modality}
    for sample in sorted(manifest.samples, key=lambda one: (one.video, one)):
        mine[sample.modality].setdefault(sample.identity, []).append(sample)
    shown: dict[Modality, dict[str, list[str]]] = {modality: {} for modality in Modality}
    for modality, people in mine.items():
        for person, samples in sorted(people.items()):
            (media / person).mkdir(parents=True, exist_ok=True)
            places = np.linspace(0, len(samples) - 1, min(len(samples), MOST_SAMPLES)).round().astype(int)
            for number, place in enumerate(places.tolist(), 1):
                file, span = manifest.locate(samples[place]), samples[place].span
                path = f"{person}/{modality}_{number:05d}{file.suffix.lower() if span is None else '.flac'}"
                if span is None:
                    (media / path).symlink_to(os.path.abspath(file))
                else:
                    write_flac(media / path, read_voice(file, span))
                shown[modality].setdefault(person, []).append(path)
    return shown


def _write_people(manifest: Manifest, folder: Path) -> None:
    _write(folder / SPLITS_FILE, [f"{name} {Split.TEST.value}" for name in manifest.identities])
    countries = {one.identity: one.nationality or "unknown" for one in manifest.samples}
    rows = [f"{name}\t{name}\t{sex}\t{countries[name]}\ttest" for name, sex in sorted(manifest.sexes.items())]
    _write(folder / "meta.csv", ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet", *rows])


def draw_pairs(
    groups: Sequence[Sequence[str]], shown: Shown, random: np.random.Generator
) -> Iterator[tuple[str, str, str, str]]:
    """Voice's person, face's person, voice, face: every voice with a face of its person and one of another.

    Args:
        groups: people who may be taken for each other, two at least.
        shown: by modality, everybody's samples.
        random: decides which face and which other person.
    """
    for group in groups:
        ring = [group[place] for place in random.permutation(len(group))]
        for place, person in enumerate(ring):
            for voice in shown[Modality.VOICE][person]:
                step = int(random.integers(1, len(ring)))
                for other in (person, ring[(place + step) % len(ring)]):
                    faces = shown[Modality.FACE][other]
                    yield person, other, voice, faces[int(random.integers(len(faces)))]


def draw_matching(
    groups: Sequence[Sequence[str]], shown: Shown, probe: Modality, random: np.random.Generator
) -> Iterator[list[str]]:
    """Rows of a probe, the right candidate and the wrong ones, each of another person; as many in every row.

    Args:
        groups: see :func:`draw_pairs`, as for what follows.
        shown: samples.
        probe: modality of the probes.
        random: decides which samples and which others.
    """
    wrong = min(MOST_CANDIDATES, *(len(group) for group in groups)) - 1
    for group in groups:
        for person in group:
            others = [name for name in group if name != person]
            for _ in range(ROUNDS):
                rivals = [others[place] for place in random.permutation(len(others))[:wrong]]
                people = [(probe, person), (probe.other, person), *((probe.other, name) for name in rivals)]
                paths = [shown[modality][name] for modality, name in people]
                yield [some[int(random.integers(len(some)))] for some in paths]


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
