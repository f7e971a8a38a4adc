"""``models``: which encoders there are, and which one serves the shared space."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import Json, UsageError, answer, console, errors_translated, progress_console

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.models import Model
    from deploy.wiring import Installation

NONE = "none"
# A line of progress is written this often while rows are made, in seconds.
LINE_EVERY = 5.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    family.callback()(models)
    family.command()(use)
    app.add_typer(family, name="models")


def models(context: typer.Context, json: Json = False) -> None:
    """List the encoders: whom they are for, how they were measured, and which serve."""
    if context.invoked_subcommand:
        return
    with errors_translated():
        from deploy.models import list_models
        from deploy.settings import load_settings

        listed = list_models(load_settings())
    answer({"models": [asdict(model) for model in listed]}, json, lambda: _show(listed))


def use(
    folder: Annotated[str, typer.Argument(help="An encoder folder, its name in the home, or none.")],
    json: Json = False,
) -> None:
    """Choose the shared-space encoder that serves, and fill its index from the stored evidence."""
    with errors_translated():
        from deploy.models import find_folder
        from deploy.wiring import installation

        with installation() as opened:
            settings = opened.settings
            chosen = None if folder == NONE else find_folder(folder, settings.home)
            if settings.model and (chosen is None or chosen.resolve() != settings.model.resolve()):
                raise UsageError(f"VISAVOX_MODEL={settings.model} decides which model serves: unset it to choose here")
            told = _switch(opened, chosen)
    told = {"folder": str(chosen) if chosen else None} | told

    def show() -> None:
        if chosen is None:
            console.print(f"no shared-space encoder serves ({told['dropped']} indexes dropped)")
            return
        console.print(
            f"{told['name']} serves the shared space, for {told['domain']}: {told['rows']} rows; {told['changed']} rows"
            f" written or removed in {told['seconds']:.0f} s, {told['dropped']} indexes of other models dropped"
        )

    answer(told, json, show)


def _switch(opened: Installation, chosen: Path | None) -> dict[str, Any]:
    """Fill the collection of a model and let it serve; what was done, and what holds now.

    Where nobody else can ask the index, the model before goes at once; else it is kept for servers that ask it still.
    """
    from deploy.reencoding import Exchange
    from search.store import SHARED

    progress = Progress()
    exchange = Exchange(opened, progress.step, progress.wait)
    done = exchange.bring_in(chosen, measure=False, switch=True, keep=not opened.settings.embedded)
    changed = done.written + opened.archive.mend(progress.step)
    encoder = opened.encoders.get(SHARED)
    return {
        "name": encoder.description.name if encoder else None,
        "digest": encoder.space.digest if encoder else None,
        "domain": encoder.domain if encoder else None,
        "trained_on": encoder.trained_on if encoder else None,
        "rows": opened.store.count(encoder.space) if encoder else 0,
        "changed": changed,
        "dropped": done.dropped,
        "seconds": round(done.seconds, 3),
    }


class Progress:
    """A line now and then while samples are encoded anew."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def step(self, seen: int, total: int) -> None:
        """So many samples of so many are encoded."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY:
            self._last = now
            rate = seen / max(now - self._started, 1e-9)
            remaining = (total - seen) / max(rate, 1e-9)
            progress_console.print(
                f"{seen} of {total} samples encoded, {rate:.0f} per second, about {remaining:.0f} s remaining"
            )

    def wait(self, seconds: float) -> None:
        """Those who just write have been waited for so long."""
        now = time.monotonic()
        if seconds >= LINE_EVERY <= now - self._last:
            self._last = now
            progress_console.print(f"waiting for those who just write to end, {seconds:.0f} s")


def _show(listed: list[Model]) -> None:
    for model in listed:
        mark = "●" if model.serving else "○" if model.kept else " "
        if model.problem:
            console.print(f"{mark} {model.folder}\n    cannot be used: {model.problem}")
            continue
        people = f", {model.people} people" if model.people is not None else ""
        console.print(f"{mark} {model.name}  space {model.space}  {model.digest[:12]}  for {model.domain}{people}")
        console.print(f"    {model.folder}")
        for line in _figures(model):
            console.print(f"    {line}")
    if not any(model.space == "shared" for model in listed):
        console.print("no shared-space encoder yet: visavox train bi_quintuple --population")


def _figures(model: Model) -> list[str]:
    """What was measured, a line for each question."""
    lines = []
    for question, figures in (model.figures or {}).items():
        told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, int | float))
        if told:
            lines.append(f"{question.replace('_', ' ')}: {told}")
    return lines
