"""What a recipe file offers, and how it is found: ``training/recipes/<method>.py``, by its file name.

A recipe is one method. Its module holds

- ``Settings``: a frozen dataclass of every number of the method, with :class:`RecipeSettings`' fields among them; its
  defaults are the paper's;
- ``POPULATION``: the settings for invented people: small networks, short clips, minutes on a laptop;
- ``ABLATIONS``: what to change, field by field, to take a part of the method away or to try another number, by the
  name of that row;
- ``stages(settings, frozen)``: what is trained one after the other, as :class:`Stage`.

The loop (:mod:`training.loop`) knows no more of a method than its stages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor

from encoders.heads import Layer, SharedSpaceHead
from encoders.space import Modality
from training.data_parallel import Processes
from training.networks import NetworkGiven, make_network, run_network

if TYPE_CHECKING:
    from training.vectors import Vectors

MadeTask = TypeVar("MadeTask", bound="Task")

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "training" / "recipes"
# What decides a run's weights beside the recipe itself: networks, data order and variation, step, choice of the best.
DECIDING = (
    "encoders/backbones/small_face.py",
    "encoders/backbones/small_voice.py",
    "encoders/heads.py",
    "search/ranking.py",
    "training/batches.py",
    "training/loop.py",
    "training/networks.py",
    "training/data_parallel.py",
    "training/reproducible.py",
    "training/validation.py",
)


class UnknownRecipe(ValueError):
    """There is no recipe of this name; the message lists what there is."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Faces and voices of some people; people are numbered 0 to people − 1 within the training set.

    Args:
        faces: (n, 3, side, side) float32 as their network takes them, or (n, d) float32 frozen vectors.
        face_people: (n,) int64.
        voices: (m, frames, values) float32 as their network takes them, or (m, e) float32 frozen vectors.
        voice_lengths: (m,) int64 frames that count, or None when all do.
        voice_people: (m,) int64.
        face_weights: (n,) float32 in [0, 1], how sure it is that a face is that person's; None: all are.
        voice_weights: likewise.
    """

    faces: Tensor
    face_people: Tensor
    voices: Tensor
    voice_lengths: Tensor | None
    voice_people: Tensor
    face_weights: Tensor | None = None
    voice_weights: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.faces, self.face_people, self.voices, self.voice_people)]
        if self.faces.ndim not in (2, 4) or self.face_people.shape != self.faces.shape[:1]:
            raise ValueError(
                f"a batch needs (n, 3, side, side) or (n, d) faces and (n,) people, got {shapes[0]} and {shapes[1]}"
            )
        if self.voices.ndim not in (2, 3) or self.voice_people.shape != self.voices.shape[:1]:
            raise ValueError(
                f"a batch needs (m, frames, bands) or (m, d) voices and (m,) people, got {shapes[2]}, {shapes[3]}"
            )
        if self.voice_lengths is not None and self.voice_lengths.shape != self.voices.shape[:1]:
            raise ValueError(f"{tuple(self.voice_lengths.shape)} lengths do not fit {shapes[2]} voices")
        for weights, samples in ((self.face_weights, shapes[0]), (self.voice_weights, shapes[2])):
            if weights is not None and weights.shape != samples[:1]:
                raise ValueError(f"{tuple(weights.shape)} weights do not fit {samples} samples")

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device."""

        def there(one: Tensor | None) -> Tensor | None:
            return None if one is None else one.to(device)

        return Batch(
            self.faces.to(device),
            self.face_people.to(device),
            self.voices.to(device),
            there(self.voice_lengths),
            self.voice_people.to(device),
            there(self.face_weights),
            there(self.voice_weights),
        )


@dataclass(frozen=True)
class Given:
    """What a task is made for.

    Args:
        people: training identities, at least 2.
        sexes: of each, ``f``, ``m`` or empty.
        face: what stands in front of the head for faces.
        voice: likewise.
    """

    people: int
    sexes: tuple[str, ...]
    face: NetworkGiven
    voice: NetworkGiven

    def __post_init__(self) -> None:
        if self.people < 2:
            raise ValueError(f"training needs at least 2 people, got {self.people}")
        if len(self.sexes) != self.people:
            raise ValueError(f"{self.people} people need as many sexes, got {len(self.sexes)}")

    def of(self, modality: Modality) -> NetworkGiven:
        """What is given of a modality."""
        return self.face if modality is Modality.FACE else self.voice


class Task(torch.nn.Module, ABC):
    """Networks with the losses that train them.

    ``face``, ``voice`` and ``head`` are what serving keeps; every other parameter (classifiers, gates,
    prototypes) is thrown away when the encoder is published. ``face`` and ``voice`` are made here; a recipe may put
    others in their place, such as one that both share.

    Args:
        given: what it is made for.
    """

    head: torch.nn.Module
    processes: Processes | None = None
    """Those that train it together; set by the loop."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.given = given
        self.face = make_network(Modality.FACE, given.face)
        self.voice = make_network(Modality.VOICE, given.voice)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name: ``total`` is what is minimised, the others are its terms and counts, for the log."""

    def features(self, modality: Modality, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the network of a modality makes of samples, before the head: (n, dimension) float32.

        Args:
            modality: what the inputs show.
            inputs: (n, 3, side, side) float32 faces, (n, frames, values) float32 voices, or (n, d) frozen vectors.
            lengths: of voices, (n,) int64 frames that count; None when all do.
        """
        network, given = self.face if modality is Modality.FACE else self.voice, self.given.of(modality)

        def run(samples: Tensor, lengths: Tensor | None) -> Tensor:
            return run_network(modality, given, network, samples, lengths)

        return run(inputs, lengths) if given.backbone is None else self.divided(run, inputs, lengths)

    def divided(
        self, run: Callable[[Tensor, Tensor | None], Tensor], samples: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Run a network on samples; in a training of several processes each on its part of them.

        Args:
            run: (n, …) samples and perhaps their (n,) lengths to (n, d) features.
            samples: (n, …).
            lengths: (n,) or None.

        Returns:
            (n, d) features of all samples.
        """
        together = self.processes if self.training else None
        return run(samples, lengths) if together is None else together.divided(run, samples, lengths)

    def embed(self, modality: Modality, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Points of the shared space as serving will have them, before normalisation.

        Whoever validates with it calls ``eval()`` first.

        Args:
            modality: see :meth:`features`.
            inputs: likewise.
            lengths: likewise.

        Returns:
            (n, dimension) float32.
        """
        return cast(Tensor, self.head(self.features(modality, inputs, lengths), modality))


class Assembled(Task):
    """The networks of one stage under the head of a later one that learned from their vectors.

    Args:
        networks: the task of the stage that trained them.
        headed: the task of the stage whose head is kept.
    """

    def __init__(self, networks: Task, headed: Task) -> None:
        torch.nn.Module.__init__(self)
        self.given = networks.given
        self.face, self.voice, self.head = networks.face, networks.voice, headed.head

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing is left to train."""
        raise NotImplementedError("an assembled task only embeds")


@dataclass(frozen=True)
class Stage:
    """One training of a method, from a beginning to the checkpoint that is kept.

    Args:
        name: what it is called; in a method of several stages also the name of its run.
        settings: what batches and the loop read: see :class:`RecipeSettings`.
        build: makes the task, initialised from the seed alone, for what is given; told the finished task of the
            stage before, if there is one.
        optimiser: makes the optimiser over a task's parameters.
        learning_rate: a pure function of progress in [0, 1].
        on_vectors: whether it learns from the features that the stage before makes of the samples, extracted once; as
            a method's first stage, from those of the networks that a run is told to begin with.
        keep: which checkpoint is kept: ``best`` by mean mAP across the modalities on validation people, or ``last``.
        average: decay, by step, of the moving average of the weights that is validated and kept instead of the weights
            themselves (Polyak and Juditsky, 1992); 0: none.
        begin: sets a new task's parameters by the vectors that it will learn from, in closed form; what it begins with
            is validated too and, as the best, kept if no epoch is better. It raises ValueError, with what to do, where
            these cannot be begun with. None, and where networks are trained: what ``build`` made.
    """

    name: str
    settings: Any
    build: Callable[[Given, int, Task | None], Task]
    optimiser: Callable[[Task], torch.optim.Optimizer]
    learning_rate: Callable[[float], float]
    on_vectors: bool = False
    keep: Literal["best", "last"] = "best"
    average: float = 0.0
    begin: Callable[[Task, Vectors], None] | None = None

    def __post_init__(self) -> None:
        if self.keep not in ("best", "last") or not 0 <= self.average < 1:
            raise ValueError(f"keep is best or last, average in [0, 1), got {self.keep!r} and {self.average}")


class RecipeSettings(Protocol):
    """The fields that every recipe's ``Settings`` has; a recipe adds its own (margin, temperature …).

    It may have ``steps_per_epoch`` and ``augmentation`` too: see :mod:`training.batches`; and ``face_preparation``
    and ``voice_preparation``, fields of the backbones' preparations that are not at their defaults; ``centred``, the
    modalities whose probes are tried without their mean (:mod:`training.centring`); and
    ``begun_with(modalities)``, the same settings for a run that begins with weights for the networks of these.
    """

    @property
    def face_backbone(self) -> str:
        """Name of a row of ``encoders.face.BACKBONES``."""
        ...

    @property
    def voice_backbone(self) -> str:
        """Name of a row of ``encoders.voice.BACKBONES``."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over the training people, at least 1."""
        ...

    @property
    def learning_rate(self) -> float:
        """The largest learning rate."""
        ...

    def fitting(self, people: int) -> Any:  # noqa: ANN401 - settings of the same kind
        """The same settings, with batches that so many people can fill."""
        ...

    @property
    def people_per_batch(self) -> int:
        """Identities in a batch, at least 2."""
        ...

    @property
    def samples_per_person(self) -> int:
        """Samples of each modality per identity of a batch."""
        ...


class Recipe(Protocol):
    """The module of a recipe, as types see it."""

    __name__: str
    __file__: str
    Settings: Callable[..., Any]
    POPULATION: Any
    ABLATIONS: Mapping[str, Mapping[str, Any]]

    def stages(self, settings: Any, frozen: bool) -> tuple[Stage, ...]:  # noqa: ANN401 - the recipe's own Settings
        """What is trained one after the other.

        Args:
            settings: of the recipe.
            frozen: whether the samples are frozen vectors from the outset, so that no network is to be trained.
        """
        ...


def shared_head(given: Given, width: int, shared: Sequence[Layer]) -> SharedSpaceHead:
    """A head of layers that both modalities share; features of another width come through a linear layer of their own.

    Args:
        given: whose features it is for.
        width: components that the shared layers take.
        shared: see :data:`encoders.heads.LAYERS`.
    """
    own: list[list[Layer]] = [
        [] if one.dimension == width else [["linear", one.dimension, width]] for one in (given.face, given.voice)
    ]
    return SharedSpaceHead(own[0], own[1], shared, given.face.dimension, given.voice.dimension)


def single(values: Tensor) -> Tensor:
    """The same in float32 where autocast made less of it: losses are differences of what is nearly alike."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def seeded(make: Callable[..., MadeTask], seed: int, *arguments: Any) -> MadeTask:  # noqa: ANN401 - the task's own
    """A task with parameters drawn from ``seed`` alone; the process's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*arguments)


def recipes() -> list[str]:
    """The names of all recipes there are, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.py") if not path.stem.startswith("_"))


def load_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UnknownRecipe: there is none; nothing is imported then.
    """
    if name not in recipes():
        raise UnknownRecipe(f"there is no recipe {name!r}; choose one of: {', '.join(recipes()) or '(none)'}")
    return cast(Recipe, importlib.import_module(f"training.recipes.{name}"))


def shares_one_network(recipe: Recipe) -> bool:
    """Whether faces and voices go through one network, that of faces: its module says ``ONE_NETWORK = True``."""
    return bool(getattr(recipe, "ONE_NETWORK", False))


def weighs_samples(recipe: Recipe) -> bool:
    """Whether a method counts a sample by how sure it is whose it is: its module says ``WEIGHS_SAMPLES = True``."""
    return bool(getattr(recipe, "WEIGHS_SAMPLES", False))


def recipe_name(recipe: Recipe) -> str:
    """What a recipe is called: the name of its file."""
    return recipe.__name__.rsplit(".", 1)[-1]


def stage_sources(stage: Stage) -> list[Path]:
    """The files whose code decides what a stage comes to: the loop's, the method's, what that imports of training."""
    methods = {_source(one) for one in (stage.build, stage.begin) if one is not None}
    imported = {
        node.module
        for method in methods
        for node in ast.walk(ast.parse(method.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("training.")
    }
    further = [ROOT / f"{name.replace('.', '/')}.py" for name in imported]
    return sorted({*(ROOT / name for name in DECIDING), *methods, *(path for path in further if path.is_file())})


def _source(made_by: Any) -> Path:  # noqa: ANN401 - a function, perhaps with some of its arguments
    while isinstance(made_by, partial):
        made_by = made_by.func
    return Path(cast(str, inspect.getsourcefile(made_by)))


def source_digest(stage: Stage) -> str:
    """SHA-256 of the code that decides what a stage comes to: whoever changes a method gets another run."""
    digest = hashlib.sha256()
    for path in stage_sources(stage):
        digest.update(path.read_bytes())
    return digest.hexdigest()
