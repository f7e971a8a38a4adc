"""``train``: a recipe becomes an encoder that can serve the shared space."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.cli.output import Json, NothingDone, UsageError, answer, console, errors_translated, progress_console

if TYPE_CHECKING:
    from deploy.training import Outcome
    from deploy.wiring import Installation
    from training.configuration import Configuration
    from training.recipe import Recipe

# Without a terminal to draw on, a line of progress is written this often, in seconds.
LINE_EVERY = 10.0
# Many people with few samples each teach more than few with many: what is shared is told from what is private.
PEOPLE, SAMPLES = 1250, 4


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(train)


def train(
    recipe: Annotated[str, typer.Argument(help="The method: the name of a file in training/recipes.")],
    population: Annotated[bool, typer.Option("--population", help="Learn from people that are invented.")] = False,
    people: Annotated[
        int | None,
        typer.Option(min=2, help=f"How many people to learn from: invented ({PEOPLE}), or of a corpus (all)."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help=f"Photos, and as many utterances, of each who is invented ({SAMPLES}).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the run; with --population another seed invents other people instead."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over them; the recipe's own number.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of settings: the recipe's, and seed and the like under run.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="paper (default for a corpus) or population (default for invented people).")
    ] = None,
    ablation: Annotated[
        str | None, typer.Option(help="A row of the method's ablations: a part taken away, or another number.")
    ] = None,
    initial: Annotated[
        list[str] | None,
        typer.Option(help="An encoder folder, or its name in the home: what networks begin with; repeatable."),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Learn from a corpus: voxceleb1, voxceleb1-d, mav-celeb, folder, csv, protocol.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="With --corpus: where it lies.")] = None,
    faces: Annotated[Path | None, typer.Option(help="With --corpus: where its faces lie, if elsewhere.")] = None,
    lists: Annotated[Path | None, typer.Option(help="With --corpus: where its lists lie, if elsewhere.")] = None,
    allow_missing: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of listed files and people that may be absent. 0.05")
    ] = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="With --initial: its networks may know people of the test; it is told.")
    ] = False,
    features: Annotated[
        Path | None, typer.Option(help="Learn from frozen features: a folder of `visavox features`, in minutes.")
    ] = None,
    archive: Annotated[
        str | None, typer.Option(help="Learn from the people who are seen to speak in the films of this archive.")
    ] = None,
    enrolled: Annotated[
        bool, typer.Option("--enrolled", help="Learn from the people who are enrolled; goes with --archive too.")
    ] = False,
    json: Json = False,
) -> None:
    """Train an encoder of faces and voices, publish it, and measure it on people it has never seen."""
    from training.recipe import UnknownRecipe, load_recipe

    try:
        method = load_recipe(recipe)
    except UnknownRecipe as error:
        raise UsageError(str(error)) from error
    own = archive is not None or enrolled
    if population + (corpus is not None) + (features is not None) + own != 1:
        raise UsageError(
            "say whom to learn from: --population (people that are invented), --corpus NAME --root DIR (a corpus), "
            "--features DIR (features that were extracted), or --archive NAME and --enrolled (your films and people)"
        )
    if (corpus is None) != (root is None) or (corpus is None and (faces or lists or allow_missing is not None)):
        raise UsageError("--corpus and --root go together; --faces, --lists and --allow-missing go with them")
    if (samples is not None and not population) or (people is not None and not population and corpus is None):
        raise UsageError("--samples goes with --population, --people with --population or --corpus")
    if initial and (features is not None or own):
        raise UsageError("--initial goes with --population or --corpus: on frozen features no network is trained")
    if allow_seen and (corpus is None or not initial):
        raise UsageError("--allow-seen goes with --corpus and --initial: nothing else knows people of the test")
    with errors_translated(), training_errors_translated("training"):
        from deploy.models import serving_folder
        from deploy.training import order_population, train_population
        from deploy.wiring import installation
        from training.population.splits import TrainingSpec

        chosen, frozen = preset or ("population" if population else "paper"), features is not None or own
        told = _configured(method, config, chosen, ablation, epochs, frozen=frozen)
        with installation() as opened, Stages(quiet=opened.settings.place > 0) as stages:
            begun = _begun_with(method, initial or [], opened.settings.home, told.settings)
            drawn: dict[str, Any] = {} if seed is None or population else {"seed": seed}
            told = replace(told, run=replace(told.run, **begun, **drawn))
            if opened.settings.processes > 1 and (features is not None or own):
                raise UsageError("on frozen vectors a model learns in minutes: start this without a launcher")
            if corpus is not None and root is not None:
                places = root, faces, lists, allow_missing
                outcome = _on_corpus(opened, method, corpus, places, people, told, stages, allow_seen=allow_seen)
            elif features is not None:
                outcome = _on_features(opened, method, features, told, stages)
            elif own:
                outcome = _on_archive(opened, method, archive, enrolled, told, stages)
            else:
                try:
                    learned = TrainingSpec(people or PEOPLE, samples or SAMPLES, seed or 0)
                    order = order_population(opened, method, learned, settings=told.settings, run=told.run)
                except ValueError as error:
                    raise UsageError(str(error)) from error
                if opened.settings.place == 0:
                    _tell_untaught(told.settings, order.settings)
                outcome = train_population(opened, order, stages.told)
            serving = serving_folder(opened.settings)
            serves = serving is not None and serving.resolve() == outcome.encoder.resolve()
            if opened.settings.place > 0:  # of several processes that train together the first one answers
                return

    if outcome.before:
        progress_console.print(f"this very model was published before: {outcome.encoder}")

    def show() -> None:
        from search.report import as_table

        if outcome.report:
            console.print(as_table(outcome.report))
        else:
            console.print(f"not measured: {outcome.unmeasured}")
        console.print(f"published: {outcome.encoder}")
        if not serves:
            console.print(f"it does not serve yet: visavox models use {outcome.encoder.name}")

    document: dict[str, Any] = {
        "encoder": str(outcome.encoder),
        "report": outcome.report or None,
        "seconds": round(outcome.seconds, 3),
    }
    if not outcome.report:
        document["note"] = outcome.unmeasured
    answer(document, json, show)


def _configured(
    method: Recipe, config: Path | None, preset: str, ablation: str | None, epochs: int | None, *, frozen: bool = False
) -> Configuration:
    """A preset's settings, over them the file's, over them the options'. Raises UsageError."""
    from training.configuration import (
        Configuration,
        ConfigurationError,
        changed,
        preset_settings,
        read_configuration,
        without_part,
    )
    from training.runs import RunSettings

    try:
        if config is None:
            told = Configuration(preset_settings(method, preset), RunSettings(curves=True))
        else:
            told = read_configuration(method, config, preset)
        settings = told.settings if ablation is None else without_part(method, told.settings, ablation, frozen=frozen)
        settings = settings if epochs is None else changed(settings, {"epochs": epochs})
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    return replace(told, settings=settings)


def _begun_with(method: Recipe, named: list[str], home: Path, settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """The fields of RunSettings that say which encoder folder each network begins with.

    Raises:
        UsageError: a name is no encoder's, or one has no network that these settings have.
    """
    from deploy.models import find_folder
    from encoders.folder import EncoderError
    from training.beginnings import fitting_folders

    try:
        begun = fitting_folders(method, settings, [find_folder(name, home) for name in named])
    except (EncoderError, ValueError) as error:
        raise UsageError(str(error)) from error
    return {f"initial_{modality}": folder for modality, folder in begun.items()}


def _tell_untaught(asked: Any, ordered: Any) -> None:  # noqa: ANN401
    """Say it where a stage that the settings have is left out, as weights are given for what it would teach."""
    for stage in ("identity", "pretraining"):
        if getattr(asked, stage, None) is not None and getattr(ordered, stage) is None:
            progress_console.print("networks that --initial gives are not taught to tell people apart first")


def _on_corpus(
    opened: Installation,
    method: Recipe,
    corpus: str,
    places: tuple[Path, Path | None, Path | None, float | None],
    people: int | None,
    told: Configuration,
    stages: Stages,
    *,
    allow_seen: bool,
) -> Outcome:
    """Train on a corpus that lies at these places: root, faces, lists, and the share that may be absent."""
    from deploy.corpus_training import order_corpus, train_corpus
    from training.corpora import CORPORA, MOST_MISSING, CorpusError, Source, layouts_told
    from training.recipe import shares_one_network

    if corpus not in CORPORA:
        raise UsageError(f"there is no corpus {corpus!r}; there are {layouts_told()}")
    root, faces, lists, share = places
    source = Source(root, faces, lists, most_missing=MOST_MISSING if share is None else share)
    try:
        order = order_corpus(opened, method, corpus, source, told.settings, told.run, people, allow_seen=allow_seen)
    except CorpusError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    if opened.settings.place == 0:
        _tell_untaught(told.settings, order.settings)
        learned = ["face"] if shares_one_network(method) else ["face", "voice"]
        drawn = [f"{one}s" for one in learned if getattr(order.run, f"initial_{one}") is None]
        if drawn:
            named = " and ".join(drawn)
            progress_console.print(f"networks of {named} begin with random numbers; --initial names weights for them")
    return train_corpus(opened, order, stages.told)


def _on_features(opened: Installation, method: Recipe, folder: Path, told: Configuration, stages: Stages) -> Outcome:
    """Train on frozen features."""
    from deploy.feature_training import FeatureOrder, train_features
    from training.features import FeaturesError

    try:
        return train_features(opened, FeatureOrder(method, told.settings, folder, told.run), stages.told)
    except FeaturesError as error:
        raise NothingDone("features", str(error)) from error


def _on_archive(
    opened: Installation, method: Recipe, archive: str | None, enrolled: bool, told: Configuration, stages: Stages
) -> Outcome:
    """Train on the films of an archive, the enrolled, or both."""
    from deploy.archive_training import ArchiveOrder, NoArchive, train_archive
    from training.mining import TooFewMined
    from training.recipe import recipe_name, weighs_samples

    if archive is not None and not weighs_samples(method):
        progress_console.print(
            f"{recipe_name(method)} counts every face and turn of the films alike, however sure it is whose they are; "
            "visavox weighs them"
        )
    try:
        return train_archive(opened, ArchiveOrder(method, told.settings, archive, enrolled, told.run), stages.told)
    except NoArchive as error:
        raise NothingDone("not_found", str(error)) from error
    except TooFewMined as error:
        raise NothingDone("too_few", str(error)) from error


@contextmanager
def training_errors_translated(kind: str) -> Iterator[None]:
    """Turn errors of training and measuring into NothingDone of a kind, with their sentence."""
    from concurrent.futures.process import BrokenProcessPool

    from search.evaluation import NothingToMeasure
    from search.points import SeenInTraining
    from search.protocols import ProtocolError
    from training.checkpoint import CheckpointError
    from training.corpora import CorpusError
    from training.loop import TrainingError
    from training.population.synthesiser import SynthesiserError
    from training.publish import PublishError
    from training.reading import PreparationError

    try:
        yield
    except BrokenProcessPool as error:
        raise NothingDone(kind, "a process died, perhaps for want of memory; the same command goes on") from error
    except (
        CheckpointError, CorpusError, NothingToMeasure, PreparationError, ProtocolError, PublishError, SeenInTraining,
        SynthesiserError, TrainingError,
    ) as error:  # fmt: skip
        raise NothingDone(kind, str(error)) from error


class Stages:
    """Each stage of a training on standard error: a bar on a terminal, a line now and then elsewhere.

    Args:
        quiet: nothing is said, because another process says it.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=progress_console, disable=quiet or not sys.stderr.isatty(),
        )  # fmt: skip
        self._stage, self._bar = "", TaskID(0)
        self._began = self._last = 0.0
        self._first, self._moving = 0, False

    def __enter__(self) -> Stages:
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def told(self, stage: str, done: int, total: int, note: str) -> None:
        """So much of a stage is done."""
        now = time.monotonic()
        new = stage != self._stage
        if new:
            self._stage, self._began, self._first, self._moving = stage, now, done, False
            self._bar = self._bars.add_task(stage, total=total, note=note, completed=done)
        elif done > self._first and not self._moving:  # processes that have to start first are no measure of pace
            self._moving, self._began, self._first = True, now, done
        self._bars.update(self._bar, completed=done, total=total, note=note)
        if not self._quiet and not sys.stderr.isatty() and (new or done == total or now - self._last >= LINE_EVERY):
            self._last = now
            progress_console.print(self._line(stage, done, total, note, now))

    def _line(self, stage: str, done: int, total: int, note: str, now: float) -> str:
        line = f"{stage}: {done} of {total}" + (f", {note}" if note else "")
        gained = done - self._first
        if not gained or done == total:
            return line
        return f"{line}, about {(now - self._began) / gained * (total - done):.0f} s remaining"
