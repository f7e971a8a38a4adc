"""What one's own films teach without labels, beside what the same films teach with them, on people never seen.

Run ``python -m tests.benchmarks.archive_learning --home DIR [--people 100] [--recipe visavox] [--seeds 3]``. Films
of invented people are made and ingested (about a quarter of an hour for 100 people, on an idle core); people are mined
out of them, and a head learns from those; another learns from the true people of the same films whom the first one
had, a third from all of them. All are measured on the population's test people, whom nobody filmed, exactly, in the
vectors of the identity networks: 1000 photos and 1000 utterances. A home that is kept goes on where it was.

This is a test of the mechanism on invented people and says nothing about real ones: the identity networks that the
heads stand on have only ever seen real people.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.archive_training import mine_archive
from deploy.settings import load_settings
from deploy.training import invite_measured, sample_readers
from deploy.wiring import Installation
from encoders.encoder import Encoder
from encoders.space import Modality, Space
from search.crossmodal import evaluate_protocol
from search.points import Points, embed_files
from search.protocols import Protocol, read_protocol
from tests.deploy.test_mining_on_films import whose
from training.corpora import Split
from training.filmed import Film, Looks, Reader
from training.loop import RunSettings, TrainingData, finished_task, train
from training.mining import MinedPerson, split_people, vectors_of_people
from training.population.films import Camera, make_film
from training.population.people import Stream, invent_people
from training.population.scenes import plan_scene
from training.recipe import Recipe, load_recipe
from training.runs import describe, key_of
from training.vectors import Vectors

ARCHIVE, SEED, SECONDS, CASTS = "films", 41, 12.0, (2, 3, 1, 2)
Vector = NDArray[np.float32]


def quiet(*_: object) -> None:
    """Nobody listens."""


def make_films(opened: Installation, home: Path, people: int) -> dict[str, str]:
    """Everybody in two films, with other company: ingested; person by evidence."""
    everybody, random = invent_people(people, SEED, Stream.TRAINING), np.random.default_rng(SEED)
    shown: dict[str, str] = {}
    number = 0
    for _ in range(2):
        order = [everybody[place] for place in random.permutation(people)]
        while order:
            size = CASTS[number % len(CASTS)]
            cast, order = order[:size], order[size:]
            film, told = home / f"{number:04d}.mp4", home / f"{number:04d}.json"
            if not told.is_file():
                truth = make_film(film, plan_scene(cast, SECONDS, 100 * SEED + number), number, Camera(fps=25.0))
                read = opened.extractor.extract(film)
                opened.archive.enter(film, ARCHIVE, read)
                told.write_text(json.dumps(whose(truth, read)))
            shown |= json.loads(told.read_text())
            number += 1
            print(f"film {number}", end="\r", flush=True)
    opened.archive.flush()
    return shown


def labelled(films: Sequence[Film], shown: Mapping[str, str]) -> dict[str, MinedPerson]:
    """The true people of films who have a face and a voice in them, with all samples and full weights."""
    found: dict[str, dict[Modality, list[Looks]]] = defaultdict(lambda: {modality: [] for modality in Modality})
    for film in films:
        samples = [(Modality.FACE, face.looks) for face in film.faces]
        samples += [(Modality.VOICE, turn.sound) for turn in film.turns]
        for modality, looks in samples:
            for place, evidence in enumerate(looks.evidence):
                one = Looks(looks.vectors[place : place + 1], np.ones(1), (evidence,))
                found[shown.get(evidence, "")][modality].append(one)
    joined = {
        name: {modality: Looks.joined(looks) for modality, looks in has.items()}
        for name, has in sorted(found.items())
        if name and all(has.values())
    }
    return {
        name: MinedPerson(name, has[Modality.FACE], has[Modality.VOICE], 1.0, (), False, has[Modality.VOICE])
        for name, has in joined.items()
    }


def population_vectors(protocol: Protocol, encoders: Mapping[Modality, Encoder], kept: Path) -> dict[str, Any]:
    """Paths and identity vectors of the test people's samples, by modality."""
    if not kept.is_file():
        found: dict[str, Any] = {}
        for modality, encoder in encoders.items():
            files = {path: protocol.media / path for path in protocol.samples(modality).paths}
            vectors, _ = embed_files({modality: files, modality.other: {}}, encoder, sample_readers())  # type: ignore[arg-type]
            found[f"{modality}_paths"] = np.array(list(vectors[modality]))
            found[f"{modality}_vectors"] = np.stack(list(vectors[modality].values()))
        np.savez(kept, **found)
    return dict(np.load(kept, allow_pickle=False))


def learn_and_measure(
    recipe: Recipe, data: TrainingData, seed: int, runs: Path, protocol: Protocol, samples: Mapping[str, Any]
) -> dict[str, float]:
    """One head, from vectors to its share of the ceiling."""
    settings, run = recipe.Settings().fitting(data.training.apart), RunSettings(seed=seed)  # type: ignore[operator]
    began = time.perf_counter()
    key = key_of(describe(recipe, settings, run, frozen=True) | {"learned": data.training.digest})
    trained = train(recipe, settings, data, runs / key, run)
    seconds = time.perf_counter() - began
    task = finished_task(recipe, settings, data, trained)
    points: dict[Modality, Vector] = {}
    for modality in Modality:
        with torch.inference_mode():
            raw = task.embed(modality, torch.from_numpy(samples[f"{modality}_vectors"])).numpy().astype(np.float64)
        points[modality] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    space = Space("shared", points[Modality.FACE].shape[1], "0" * 64)
    paths = {modality: tuple(samples[f"{modality}_paths"].tolist()) for modality in Modality}
    report = evaluate_protocol(protocol, Points(space, paths, points), draws=10)
    told = {
        "seconds": seconds,
        "best_epoch": trained.best_epoch,
        "sex_only": report["verification"]["gender_oracle_auc"],
    }
    for name, one in (("", report["verification"]), ("same_sex_", report["verification"]["same_sex"])):
        told |= {f"{name}auc": one["auc"], f"{name}share": (one["auc"] - 0.5) / (one["ceiling_auc"] - 0.5)}
    return told | {way: one["map_exact"] for way, one in report["retrieval"].items()}


def sides_of(opened: Installation, shown: Mapping[str, str]) -> Iterator[tuple[str, TrainingData]]:
    """Whom each head learns from and is chosen on."""
    encoders = {modality: opened.encoders[f"{modality}_identity"] for modality in Modality}
    spaces = {modality: one.space for modality, one in encoders.items()}
    mined = mine_archive(opened, ARCHIVE, False, quiet)
    films = list(Reader(opened.records, opened.store, spaces).films(opened.records.ledger.archived(ARCHIVE)))
    true = labelled(films, shown)
    name = {one.name: Counter(shown[look] for look in one.faces.evidence).most_common(1)[0][0] for one in mined.people}
    right = [shown[voice] == name[one.name] for one in mined.people for voice in one.voices.evidence]
    print(f"{mined.films} films, {mined.turns} turns: {len(mined.people)} people mined, {len(set(name.values()))} of "
          f"{len(true)} true ones; {np.mean(right):.3f} of {len(right)} turns are of the face's person")  # fmt: skip
    sides = split_people(mined)

    def data(training: Sequence[MinedPerson], validation: Sequence[MinedPerson]) -> TrainingData:
        parts: list[Vectors] = [vectors_of_people(people, spaces) for people in (training, validation)]
        return TrainingData(*parts)

    mined_sides = (sides[split] for split in (Split.TRAIN, Split.VALIDATION))
    yield "mined", TrainingData(*(vectors_of_people(people, spaces, mined.beside) for people in mined_sides))
    yield "mined, possibly one against each other", data(sides[Split.TRAIN], sides[Split.VALIDATION])
    same = {side: {name[one.name] for one in people} & set(true) for side, people in sides.items()}
    chosen = same[Split.VALIDATION] - same[Split.TRAIN]
    yield "labelled, the same people", data([true[n] for n in same[Split.TRAIN]], [true[n] for n in chosen])
    everybody = [true[n] for n in np.random.default_rng(SEED).permutation(sorted(true)).tolist()]
    fifth = len(everybody) // 5
    yield "labelled, everybody", data(everybody[fifth:], everybody[:fifth])


def main() -> None:
    """Print a line per head: means and deviations over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="what is made is kept here")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--recipe", default="visavox")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    asked.home.mkdir(parents=True, exist_ok=True)
    opened = Installation(load_settings({"VISAVOX_HOME": str(asked.home / "home"), "VISAVOX_DEVICE": "cpu"}))
    shown = make_films(opened, asked.home, asked.people)
    protocol = read_protocol(invite_measured(opened, quiet))
    encoders = {modality: opened.encoders[f"{modality}_identity"] for modality in Modality}
    samples = population_vectors(protocol, encoders, asked.home / "population.npz")
    recipe = load_recipe(asked.recipe)
    for head, data in sides_of(opened, shown):
        runs = asked.home / "runs" / asked.recipe
        told = [learn_and_measure(recipe, data, seed, runs, protocol, samples) for seed in range(asked.seeds)]
        print(f"{head}: {len(data.training.identities)} people to learn from, {data.training.apart} surely different")
        for figure in told[0]:
            values = np.array([one[figure] for one in told])
            print(f"  {figure:16} {values.mean():8.4f} ± {values.std(ddof=len(values) > 1):.4f}")
    opened.close()


if __name__ == "__main__":
    main()
