"""A run's settings in a YAML file: what it says replaces a preset's numbers, and what it misspells is refused.

::

    preset: paper           # or population; the command's own choice without it
    epochs: 12              # fields of the recipe's Settings
    augmentation:           # fields of a group of them
      frames: 300
    run:                    # fields of RunSettings
      seed: 1
      bfloat16: true
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from encoders.folder import read_description
from training.checkpoint import replace_file
from training.recipe import Recipe, recipe_name
from training.runs import RunSettings, recorded_git, recorded_threads

PRESETS = ("paper", "population")
RUN_KEY, PRESET_KEY = "run", "preset"
# where a run is and on what it runs is the installation's to say
_RUN_FIELDS = ("seed", "bfloat16", "validate_every", "checkpoint_seconds", "accumulate", "curves")
_MOST_BYTES = 1 << 20
# What rows of ablations change of networks: which they are, and the stage that trains them.
_OF_NETWORKS = {"stream", "face_backbone", "voice_backbone"}


class ConfigurationError(ValueError):
    """A configuration cannot be used; the message names the key and what is known instead."""


@dataclass(frozen=True)
class Configuration:
    """What a run is told.

    Args:
        settings: the recipe's.
        run: seed and the like.
    """

    settings: Any
    run: RunSettings


def preset_settings(recipe: Recipe, name: str) -> Any:  # noqa: ANN401 - the recipe's own Settings
    """The settings of a recipe by the name of :data:`PRESETS`. Raises ConfigurationError."""
    if name not in PRESETS:
        raise ConfigurationError(f"there is no preset {name!r}; choose one of: {', '.join(PRESETS)}")
    return recipe.Settings() if name == "paper" else recipe.POPULATION


def read_configuration(recipe: Recipe, path: Path, otherwise: str) -> Configuration:
    """What a file says, over a preset.

    Args:
        recipe: the method.
        path: a YAML file.
        otherwise: the preset where the file names none.

    Raises:
        ConfigurationError: the file cannot be read, has an unknown key, or a value that a key cannot have.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"{path} is larger than {_MOST_BYTES} bytes: no configuration is")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(document, Mapping | None):
        raise ConfigurationError(f"{path} must hold keys and values, got {type(document).__name__}")
    told = dict(document or {})
    settings = preset_settings(recipe, str(told.pop(PRESET_KEY, otherwise)))
    run = told.pop(RUN_KEY, None) or {}
    if not isinstance(run, Mapping) or (unknown := sorted(set(run) - set(_RUN_FIELDS))):
        wrong = "it is not keys and values" if not isinstance(run, Mapping) else f"unknown: {', '.join(unknown)}"
        raise ConfigurationError(f"{path}: {RUN_KEY} has {', '.join(_RUN_FIELDS)}; {wrong}")
    try:
        return Configuration(changed(settings, told), changed(RunSettings(curves=True), run))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def changed(settings: Any, told: Mapping[str, Any], group: str = "") -> Any:  # noqa: ANN401 - any settings
    """Settings with some fields replaced, each checked against its type, and groups of them field by field.

    Raises:
        ConfigurationError: an unknown field, or a value that it cannot have.
    """
    known = {one.name for one in fields(settings)}
    if unknown := sorted(str(name) for name in set(told) - known):
        where = f" in {group}" if group else ""
        raise ConfigurationError(
            f"there is no setting {', '.join(unknown)}{where}; there are {', '.join(sorted(known))}"
        )
    values = {}
    for name, value in told.items():
        before, made = getattr(settings, name), _group(type(settings), name)
        if made is not None and isinstance(value, Mapping):
            values[name] = changed(made() if before is None else before, value, name)
            continue
        if isinstance(value, bool) and not isinstance(before, bool):
            raise ConfigurationError(f"{name} cannot be {value!r}: it is like {before!r}")
        try:
            values[name] = _adapter(type(settings), name).validate_python(value)
        except ValidationError as error:
            told_why = error.errors()[0]["msg"]
            raise ConfigurationError(f"{name} cannot be {value!r}: {told_why}") from error
    try:
        return replace(settings, **values)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def without_part(recipe: Recipe, settings: Any, row: str, *, frozen: bool = False) -> Any:  # noqa: ANN401
    """Settings with a part taken away, or another number in a place, by its name among the recipe's ``ABLATIONS``.

    Args:
        recipe: the method.
        settings: of the recipe.
        row: the name.
        frozen: whether samples are frozen vectors from the outset, so that no network is trained.

    Raises:
        ConfigurationError: the recipe has no such row, the settings are those of the row already, or the row is of
            networks and none is trained.
    """
    if row not in recipe.ABLATIONS:
        known = ", ".join(map(repr, recipe.ABLATIONS))
        raise ConfigurationError(f"{recipe_name(recipe)} has no ablation {row!r}; choose of: {known}")
    without = changed(settings, recipe.ABLATIONS[row])
    if without == settings:
        raise ConfigurationError(f"{row!r} changes nothing: {recipe_name(recipe)} is told so already")
    if frozen and _OF_NETWORKS & set(recipe.ABLATIONS[row]):
        raise ConfigurationError(
            f"{row!r} is of networks that learn, and those of frozen vectors have: train with --population or --corpus"
        )
    return without


def write_configuration(path: Path, configuration: Configuration, folder: Path) -> None:
    """Keep the effective configuration as a file that :func:`read_configuration` reads.

    As comments it also says what the installation and the command line gave: the state of the code that trained, the
    device and how many processes, and which encoder folders the networks began with.

    Args:
        path: of the file.
        configuration: of the run.
        folder: of the run.
    """
    run = configuration.run
    document = _plain(asdict(configuration.settings)) | {RUN_KEY: {name: getattr(run, name) for name in _RUN_FIELDS}}
    facts = {"code": recorded_git(folder) or "no git checkout", "device": run.torch_device().type}
    facts |= {"processes": str(run.processes), "threads": str(recorded_threads(folder) or run.threads)}
    for name in ("initial_face", "initial_voice"):
        if (begun := getattr(run, name)) is not None:
            facts[name] = f"{begun.name} ({read_description(begun).digest()})"
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    comments = "".join(f"# {name}: {told}\n" for name, told in facts.items())
    replace_file(path, f"{comments}{text}".encode())


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever settings hold
    """With lists for tuples and plain dictionaries, as YAML has them."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _group(made: type, name: str) -> type | None:
    """The dataclass that a field holds, or may hold; pydantic by itself passes over a key that none has."""
    hint = get_type_hints(made)[name]
    return next((one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one)), None)


def _adapter(made: type, name: str) -> TypeAdapter[Any]:
    """What checks a field's value; 1e-3 is a string to YAML, and a number here."""
    hint = get_type_hints(made)[name]
    return TypeAdapter(hint)
