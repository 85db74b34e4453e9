"""Commands about registered models: which there are, which one is used, and what is known of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from features.errors import RegistryError, explain
from features.feature import Target
from serving.commands.console import Screen
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace
from serving.settings import tracking_uri

if TYPE_CHECKING:
    from training.champions import Change
    from training.versions import Version, Way

__all__ = ["app", "card", "models", "promote", "rollback"]

app = typer.Typer()

TargetArgument = Annotated[Target, typer.Argument(help="Which model: churn, contraction or expansion.", show_default=False)]

_WAYS: "Mapping[Way, str]" = {"training": "training", "comparison": "comparison", "hand": "hand", "rollback": "going back"}


@app.command()
def models(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the registered models: their versions, which one is used, how good each was, and why it was or was not taken."""
    from training.champions import list_versions

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        found = {target: list_versions(opened, target, tracking_uri=tracking_uri()) for target in get_args(Target)}
        for target, versions in found.items():
            screen.say(f"[bold]{target}[/bold]{'' if versions else ': no version is registered yet'}")
            for line in (line for version in versions for line in _lines(version)):
                screen.say(line)
        screen.result({"targets": {target: [_facts(version) for version in versions] for target, versions in found.items()}})


@app.command()
def promote(
    target: TargetArgument,
    version: Annotated[str | None, typer.Option(help="Version to promote; the challenger if not given.")] = None,
    reason: Annotated[str | None, typer.Option(help="Promote by hand, whatever the comparison says, for this reason.")] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a version the champion if it beats the one that is used, or by hand with a reason; say why it was or was not done."""
    from training.champions import promote as promote_version

    with open_screen(json) as screen:
        change = promote_version(open_workspace(workspace), target, version=version, reason=reason, tracking_uri=tracking_uri())
        _show(screen, change)


@app.command()
def rollback(
    target: TargetArgument,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Use the previous champion again."""
    from training.champions import rollback as roll_back

    with open_screen(json) as screen:
        _show(screen, roll_back(open_workspace(workspace), target, reason=reason, tracking_uri=tracking_uri()))


@app.command()
def card(
    target: TargetArgument,
    version: Annotated[str | None, typer.Option(help="Version to describe; the champion if not given.")] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Print a model card in Markdown: what the model is, how good it is, for whom, and when it was used."""
    from training.card import render_history
    from training.registry import workspace_registry
    from training.versions import history

    with open_screen(json) as screen:
        registry = workspace_registry(open_workspace(workspace), tracking_uri=tracking_uri())
        versions = registry.versions(target)
        wanted = version or _champion(target, versions)
        text = registry.card(target, wanted)
        if promotions := history(versions):
            text = f"{text}\n{render_history(promotions)}"
        if not json:
            print(text)  # noqa: T201
        screen.result({"target": target, "version": wanted, "card": text})


def _champion(target: Target, versions: "Sequence[Version]") -> str:
    champion = next((version.version for version in versions if "champion" in version.aliases), None)
    if champion is None:
        known = ", ".join(version.version for version in versions) or "none yet"
        todo = "Name one with --version." if versions else "Run `renewcast train` first."
        raise RegistryError(explain(f"there is no champion of {target}", given=f"registered versions: {known}", todo=todo))
    return champion


def _show(screen: Screen, change: "Change") -> None:
    if change.moved:
        instead = f" instead of version {change.replaced}" if change.replaced else ""
        screen.say(f"[bold]Version {change.version} is now the champion of {change.target}[/bold]{instead}. {escape(change.reason)}")
        screen.say("Run `renewcast score` to score the book with it.")
    else:
        screen.say(f"[bold]Version {escape(change.version)} of {change.target} was not promoted.[/bold] {escape(change.reason)}")
    screen.result({"status": "promoted" if change.moved else "unchanged", **asdict(change)})


def _lines(version: "Version") -> Iterator[str]:
    from training.phrases import in_words

    auc = f"AUC {in_words(version.auc.value, version.auc.low, version.auc.high)}, " if version.auc else ""
    alias = f"[bold]{', '.join(version.aliases)}[/bold], " if version.aliases else ""
    yield f"  {version.version:>3}  {alias}{auc}made {version.made_at:%Y-%m-%d %H:%M} UTC. {escape(version.decision)}"
    for one in version.promotions:
        instead = f" instead of version {one.replaced}" if one.replaced else ""
        reason = "" if one.reason == version.decision else f": {escape(one.reason)}"
        yield f"       became champion on {one.at:%Y-%m-%d %H:%M} by {_WAYS[one.way]}{instead}{reason}"


def _facts(version: "Version") -> dict[str, Any]:
    return asdict(version) | {
        "made_at": version.made_at.isoformat(timespec="seconds"),
        "promotions": [asdict(one) | {"at": one.at.isoformat(timespec="seconds")} for one in version.promotions],
    }
