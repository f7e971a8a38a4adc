"""``reencode``: another model for the shared space, without an outage; and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.models import Progress
from deploy.cli.output import Json, UsageError, answer, console, errors_translated

if TYPE_CHECKING:
    from deploy.reencoding import Exchange, Exchanged
    from deploy.wiring import Installation


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(reencode)


def reencode(
    model: Annotated[str | None, typer.Option(help="An encoder folder, or its name in the home.")] = None,
    no_switch: Annotated[bool, typer.Option("--no-switch", help="Prepare and measure it; the old one serves.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Let the model serve that served before.")] = False,
    discard_previous: Annotated[
        bool, typer.Option("--discard-previous", help="Drop what is kept to go back to, or only prepared.")
    ] = False,
    json: Json = False,
) -> None:
    """Change the model of the shared space while the old one serves: fill, measure both, switch.

    Its rows are made from the stored evidence, without the films. The model before is kept until the next change,
    or until --discard-previous, and --rollback goes back to it.
    """
    if sum((model is not None, rollback, discard_previous)) != 1:
        raise UsageError("give one of --model FOLDER, --rollback and --discard-previous")
    if no_switch and model is None:
        raise UsageError("--no-switch belongs to --model FOLDER")
    with errors_translated():
        from deploy.reencoding import Exchange
        from deploy.wiring import installation

        with installation() as opened:
            if opened.settings.model and not no_switch and not discard_previous:
                raise UsageError(
                    f"VISAVOX_MODEL={opened.settings.model} decides which model serves: unset it to switch here, or "
                    "prepare another one with --no-switch"
                )
            progress = Progress()
            told = _done(opened, Exchange(opened, progress.step, progress.wait), model, rollback, not no_switch)
    answer(told, json, lambda: _show(told))


def _done(opened: Installation, exchange: Exchange, model: str | None, rollback: bool, switch: bool) -> dict[str, Any]:
    from deploy.models import find_folder

    if rollback:
        return _told(exchange.go_back())
    if model is None:
        return {"dropped": exchange.discard()}
    return _told(exchange.bring_in(find_folder(model, opened.settings.home), measure=True, switch=switch))


def _told(done: Exchanged) -> dict[str, Any]:
    """The JSON of an exchange."""
    from encoders.folder import read_description

    description = read_description(done.folder) if done.folder else None
    return {
        "model": description.name if description else None,
        "folder": str(done.folder) if done.folder else None,
        "digest": done.space.digest if done.space else None,
        "domain": description.domain if description else None,
        "trained_on": description.trained_on if description else None,
        "rows": done.rows,
        "written": done.written,
        "dropped": done.dropped,
        "map": done.figures,
        "switched": done.switched,
        "switch_seconds": None if done.switch_seconds is None else round(done.switch_seconds, 4),
        "seconds": round(done.seconds, 3),
    }


def _show(told: dict[str, Any]) -> None:
    if set(told) == {"dropped"}:
        console.print(f"{told['dropped']} indexes dropped; there is no model to go back to")
        return
    if figures := told["map"]:
        _show_figures(figures)
    how = f"serves now (switched in {told['switch_seconds']:.3f} s)" if told["switched"] else "is prepared"
    console.print(
        f"{told['model']} {how}, for {told['domain']}: {told['rows']} rows, {told['written']} of them written now, "
        f"{told['seconds']:.0f} s"
    )
    if told["switched"]:
        console.print("to go back: visavox reencode --rollback")


def _show_figures(figures: dict[str, Any]) -> None:
    """Old and new, a line for each direction and gallery."""
    if figures["note"]:
        console.print(f"note: {figures['note']}")
        return
    among = figures["with_tracks"]
    lines = {"voice to face": figures["voice_to_face"], "face to voice": figures["face_to_voice"], "both": figures}
    lines |= {f"both, among {among['tracks']} unnamed tracks too": among} if among else {}
    for name, line in lines.items():
        if not line:
            continue
        old = "none" if line["old"] is None else f"{line['old']:.3f}"
        low, high = line["new_ci95"]
        console.print(
            f"{name}: mAP {old} before, {line['new']:.3f} now ({low:.3f} to {high:.3f}), chance {line['chance']:.3f}; "
            f"{line['probes']} probes of {line['people']} people"
        )
    if gained := figures["difference"]:
        low, high = gained["ci95"]
        console.print(f"difference {gained['mean']:+.3f}, 95 % of resamplings of the people {low:+.3f} to {high:+.3f}")
