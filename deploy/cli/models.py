"""``models``: which encoders and networks there are, their weights, and which encoder serves the shared space."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import (
    DONE,
    WITH_FAILURES,
    Json,
    NothingDone,
    UsageError,
    answer,
    console,
    errors_translated,
    progress_console,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.models import Model
    from deploy.networks import Network, Pulled
    from deploy.settings import Settings
    from deploy.wiring import Installation
    from encoders.downloading import FetchRules

NONE = "none"
# A line of progress is written this often while rows are made, in seconds.
LINE_EVERY = 5.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    family.callback()(models)
    for command in (list_all, pull, verify, use):
        family.command("list" if command is list_all else None)(command)
    app.add_typer(family, name="models")


def models(context: typer.Context, json: Json = False) -> None:
    """List the encoders and networks; see `visavox models list`."""
    if not context.invoked_subcommand:
        list_all(json)


def list_all(json: Json = False) -> None:
    """List the encoders: whom they are for, how they were measured, which serve; and the networks there are."""
    with errors_translated():
        from deploy.models import list_models
        from deploy.networks import list_networks
        from deploy.settings import load_settings

        settings = load_settings()
        listed, networks = list_models(settings), list_networks(settings)

    def show() -> None:
        _show(listed)
        _show_networks(networks)

    told = [asdict(network) | {"pulled": network.pulled} for network in networks]
    answer({"models": [asdict(model) for model in listed], "networks": told}, json, show)


def pull(
    names: Annotated[list[str], typer.Argument(help="Networks, as `visavox models list` names them.", metavar="NAME…")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="A file, a folder or an https address to take the weights from instead."),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch the public weights of networks, check them, and make encoder folders of them."""
    from pathlib import Path

    with errors_translated():
        from deploy.networks import fetch_rules, find_network
        from deploy.settings import load_settings

        settings = load_settings()
        rules = fetch_rules(settings, _FetchProgress().step)
        try:
            rows = [find_network(name)[0] for name in dict.fromkeys(names)]
        except ValueError as error:
            raise UsageError(str(error)) from error
        if origin is not None and len(rows) > 1 and not Path(origin).expanduser().is_dir():
            raise UsageError("--from takes a folder for several networks; pull them one by one from other places")
        pulled, failed = _pull_each([row.name for row in rows], settings, rules, origin)
    told = {"pulled": [asdict(one) for one in pulled], "failed": failed}

    def show() -> None:
        for one in pulled:
            fetched = f"{one.fetched} of {len(one.files)} files fetched" if one.fetched else "nothing to fetch"
            console.print(f"{one.name}: {fetched}" + (f", encoder in {one.encoder}" if one.encoder else ""))
        for failure in failed:
            console.print(f"{failure['name']}: {failure['reason']}")

    answer(told, json, show, code=WITH_FAILURES if failed else DONE)


def _pull_each(
    names: list[str], settings: Settings, rules: FetchRules, origin: str | None
) -> tuple[list[Pulled], list[dict[str, str]]]:
    """What was pulled, and what could not be. Raises NothingDone if that is everything."""
    from deploy.networks import pull as pull_network
    from encoders.encoder import EncoderError
    from encoders.weights import WeightsError

    pulled: list[Pulled] = []
    failed: list[dict[str, str]] = []
    for name in names:
        try:
            pulled.append(pull_network(name, settings, rules, origin))
        except (WeightsError, EncoderError) as error:
            if len(names) == 1:
                raise
            failed.append({"name": name, "reason": str(error)})
    if not pulled:
        raise NothingDone("weights", "; ".join(one["reason"] for one in failed))
    return pulled, failed


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Networks or encoder folders; none: all that are here.", metavar="[NAME…]"),
    ] = None,
    json: Json = False,
) -> None:
    """Check weights against their hashes, and encoders against their golden vectors."""
    with errors_translated():
        from deploy.networks import known_names
        from deploy.networks import verify as verify_networks
        from deploy.settings import load_settings

        settings, wanted = load_settings(), names or []
        if unknown := sorted(set(wanted) - set(known_names(settings))):
            raise UsageError(f"there is no {', '.join(unknown)}: `visavox models list` names networks and encoders")
        found = list(verify_networks(settings, wanted))
    failed = [one for one in found if not one.ok]

    def show() -> None:
        for one in found:
            cosine = "" if one.cosine is None else f", golden cosine {one.cosine:.6f}"
            console.print(f"{one.name} ({one.kind}): {one.problem or 'as it must be'}{cosine}")

    told = {"verified": [asdict(one) | {"ok": one.ok} for one in found], "failed": len(failed)}
    answer(told, json, show, code=WITH_FAILURES if failed else DONE)


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


class _FetchProgress:
    """A line now and then while files are fetched."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def step(self, name: str, done: int, total: int | None) -> None:
        """So many bytes of so many of a file are here."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY:
            self._last = now
            whole = f" of {total / 1e6:.0f}" if total else ""
            progress_console.print(f"{name}: {done / 1e6:.0f}{whole} MB")


def _show_networks(networks: list[Network]) -> None:
    console.print("networks:")
    for network in networks:
        vectors = f"{network.dimension} components" if network.dimension else "detector"
        licence = f", {network.licence}" if network.licence else ""
        console.print(f"  {network.name}  {network.modality}, {vectors}, {network.state.replace('_', ' ')}{licence}")
        console.print(f"    trained on {network.trained_on}")


def _show(listed: list[Model]) -> None:
    for model in listed:
        mark = "●" if model.serving else "○" if model.kept else " "
        if model.problem:
            console.print(f"{mark} {model.folder}\n    cannot be used: {model.problem}")
            continue
        people = f", {model.people} people" if model.people is not None else ""
        console.print(f"{mark} {model.name}  space {model.space}  {model.digest[:12]}  for {model.domain}{people}")
        console.print(f"    {model.folder}")
        if model.centred_probes:
            console.print(f"    without their mean ask: {', '.join(f'{one}s' for one in model.centred_probes)}")
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
