"""What a recipe file offers, and how it is found: ``training/recipes/<method>.py``, by its file name.

A recipe is one method. Its module holds

- ``Settings``: a frozen dataclass of every number of the method, with :class:`RecipeSettings`' fields among them;
- ``build(settings, people, seed)``: the :class:`Task`, initialised from the seed alone;
- ``optimiser(task, settings)``: the torch optimiser over the task's parameters;
- ``learning_rate(settings, progress)``: a pure function of progress in [0, 1].

The loop (:mod:`training.loop`) knows no more of a method than this.
"""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from encoders.space import Modality

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
    "training/losses.py",
    "training/validation.py",
)


class UnknownRecipe(ValueError):
    """There is no recipe of this name; the message lists what there is."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Faces and voices of some people; people are numbered 0 to people − 1 within the training set.

    Args:
        faces: (n, 3, side, side) float32, as ``chips_to_input`` gives them.
        face_people: (n,) int64.
        voices: (m, frames, bands) float32 log-mel.
        voice_lengths: (m,) int64 frames that count, or None when all do.
        voice_people: (m,) int64.
    """

    faces: Tensor
    face_people: Tensor
    voices: Tensor
    voice_lengths: Tensor | None
    voice_people: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.faces, self.face_people, self.voices, self.voice_people)]
        if self.faces.ndim != 4 or self.face_people.shape != self.faces.shape[:1]:
            raise ValueError(f"a batch needs (n, 3, side, side) faces and (n,) people, got {shapes[0]} and {shapes[1]}")
        if self.voices.ndim != 3 or self.voice_people.shape != self.voices.shape[:1]:
            raise ValueError(f"a batch needs (m, frames, bands) voices and (m,) people, got {shapes[2]}, {shapes[3]}")
        if self.voice_lengths is not None and self.voice_lengths.shape != self.voices.shape[:1]:
            raise ValueError(f"{tuple(self.voice_lengths.shape)} lengths do not fit {shapes[2]} voices")

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device."""
        lengths = None if self.voice_lengths is None else self.voice_lengths.to(device)
        return Batch(
            self.faces.to(device),
            self.face_people.to(device),
            self.voices.to(device),
            lengths,
            self.voice_people.to(device),
        )


class Task(torch.nn.Module, ABC):
    """Networks with the losses that train them.

    ``face``, ``voice`` and ``head`` are what serving keeps; every other parameter (classifiers, gates,
    prototypes) is thrown away when the encoder is published.
    """

    face_backbone: ClassVar[str] = "small_face"
    voice_backbone: ClassVar[str] = "small_voice"
    """Rows of the tables ``encoders.face.BACKBONES`` and ``encoders.voice.BACKBONES`` that the networks belong to."""

    face: torch.nn.Module
    voice: torch.nn.Module
    head: torch.nn.Module

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name: ``total`` is what is minimised, the others are its terms and counts, for the log."""

    def embed(self, modality: Modality, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Points of the shared space as serving will have them, before normalisation.

        Whoever validates with it calls ``eval()`` first.

        Args:
            modality: what the inputs show.
            inputs: (n, 3, side, side) float32 faces, or (n, frames, bands) float32 voices.
            lengths: of voices, (n,) int64 frames that count; None when all do.

        Returns:
            (n, dimension) float32.
        """
        features = self.face(inputs) if modality is Modality.FACE else self.voice(inputs, lengths)
        return cast(Tensor, self.head(features))


class RecipeSettings(Protocol):
    """The fields that every recipe's ``Settings`` has; a recipe adds its own (margin, temperature …).

    It may have ``steps_per_epoch`` and ``augmentation`` too: see :mod:`training.batches`.
    """

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

    def build(self, settings: Any, people: int, seed: int) -> Task:  # noqa: ANN401 - the recipe's own Settings
        """The task for a number of training people, initialised from the seed and nothing else."""
        ...

    def optimiser(self, task: Task, settings: Any) -> torch.optim.Optimizer:  # noqa: ANN401
        """The optimiser over the task's parameters."""
        ...

    def learning_rate(self, settings: Any, progress: float) -> float:  # noqa: ANN401
        """The learning rate at a share of the training done, in [0, 1]."""
        ...


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


def recipe_name(recipe: Recipe) -> str:
    """What a recipe is called: the name of its file."""
    return recipe.__name__.rsplit(".", 1)[-1]


def source_digest(recipe: Recipe) -> str:
    """SHA-256 of the code that decides what a run comes to: whoever changes a method gets another run."""
    digest = hashlib.sha256()
    for path in (*(ROOT / name for name in DECIDING), Path(recipe.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
