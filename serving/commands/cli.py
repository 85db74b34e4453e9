"""The command `renewcast`: the second face of the library."""

import sys
import time
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from features.errors import ConfigError, SourceError, WorkspaceError, explain
from features.ledger import replace_folder
from features.workspace import CONFIG_NAME, Workspace, load_workspace
from serving.commands import cli_api, cli_contributions, cli_keys, cli_models, cli_policy, cli_retention, cli_store
from serving.commands.console import Screen
from serving.commands.options import DEMO, JsonOption, WorkspaceOption, open_screen, open_workspace, workspace_folder
from serving.commands.reporting import show_target
from serving.commands.steps import STEPS, StepResult, run_step
from serving.settings import process_environment

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which of our shared customers will churn or grow, why, and what that does to Net Dollar Retention.",
)
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_policy.app, name="policy")
app.add_typer(cli_store.app, name="store")
app.add_typer(cli_store.journal, name="journal")
app.add_typer(cli_contributions.app)
app.add_typer(cli_models.app)
app.add_typer(cli_api.app)
app.add_typer(cli_retention.app)

HostOption = Annotated[str | None, typer.Option(help="Address to listen on; the workspace's if not given.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on; the workspace's if not given.", min=1, max=65535)]


def main() -> None:
    """Run the command."""
    app()


def _run(screen: Screen, name: str, workspace: Workspace) -> StepResult:
    with screen.progress(name) as on_progress:
        result = run_step(STEPS[name], workspace, on_progress=on_progress, clock=time.monotonic)
    screen.done(result)
    return result


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder with your tables: CSV, Parquet or JSON Lines files.")],
    workspace: Annotated[
        Path | None, typer.Option("--workspace", help="Where to write the config; the folder itself if not given.")
    ] = None,
    json: JsonOption = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a config that is already there.")] = False,
) -> None:
    """Look at a folder of tables and write a commented config for it."""
    from features.discovery import propose_workspace

    with open_screen(json) as screen:
        target = workspace or folder
        file = target / CONFIG_NAME
        if file.exists() and not replace:
            raise ConfigError(explain("there is a config already", given=file, todo="Edit it, or pass --replace to write a new one."))
        proposal = propose_workspace(folder)
        if not proposal.guessed:
            todo = "Name the folder that your tables are in."
            raise SourceError(
                explain("no table was found in this folder", given=folder, allowed="CSV, Parquet or JSON Lines files", todo=todo)
            )
        _write(file, proposal.text)
        for line in proposal.guessed:
            screen.say(f"[green]guessed[/green]  {escape(line)}")
        for line in proposal.unknown:
            screen.say(f"[yellow]look at[/yellow]  {escape(line)}")
        screen.say(f"Wrote {escape(str(file))}. Read it, then run: renewcast up --workspace {escape(str(target))}")
        screen.result({"step": "init", "status": "done", "config": str(file), "guessed": proposal.guessed, "unknown": proposal.unknown})


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        todo = "Name a folder that you may write to with --workspace."
        raise WorkspaceError(explain(f"the config cannot be written: {error.strerror}", given=file, todo=todo)) from error


def _step(name: str, workspace: Path | None, json: bool) -> None:
    with open_screen(json) as screen:
        screen.result(_run(screen, name, open_workspace(workspace)).to_json())


@app.command()
def check(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Read the tables, check each row against the contract and set the broken ones aside."""
    _step("check", workspace, json)


@app.command()
def features(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Compute features and labels for every customer and cutoff."""
    _step("features", workspace, json)


@app.command()
def train(
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    trials: Annotated[int | None, typer.Option(help="Recipes to try for each target; the workspace's number if not given.", min=0)] = None,
) -> None:
    """Train, judge and register the models."""
    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        if trials is not None:
            opened = changed(opened, config=changed(opened.config, training=changed(opened.config.training, trials=trials)))
        screen.result(_run(screen, "train", opened).to_json())


@app.command()
def score(
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    cutoff: Annotated[
        datetime | None, typer.Option(help="An earlier cutoff of the snapshots, to compare with; the present scores stay.")
    ] = None,
) -> None:
    """Score the book as of the last midnight of the data."""
    if cutoff is None:
        _step("score", workspace, json)
        return
    from serving.scores.batch import score_workspace

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        with opened.lock("renewcast score"), screen.progress("score") as on_progress:
            scored = score_workspace(opened, cutoff=cutoff, on_progress=on_progress)
        kept = f"{scored.accounts:,} accounts scored as of {scored.cutoff:%Y-%m-%d}, kept beside the present scores"
        screen.say(f"[bold]score[/bold]     {kept}; {escape(str(scored.folder))}")
        screen.result({"step": "score", "status": "done", "version": scored.version, "cutoff": scored.cutoff, "accounts": scored.accounts})


@app.command()
def report(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show the last training's metrics beside its baselines, for each target."""
    from training.report import read_report

    with open_screen(json) as screen:
        found = read_report(open_workspace(workspace).training)
        for part in found["targets"].values():
            for shown in show_target(part):
                screen.say(shown)
        screen.result(found)


@app.command()
def serve(workspace: WorkspaceOption = None, json: JsonOption = False, host: HostOption = None, port: PortOption = None) -> None:
    """Serve the scores: pages for people, an endpoint for applications."""
    with open_screen(json) as screen:
        _serve(screen, open_workspace(workspace), host, port, done=[])


@app.command()
def up(
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    host: HostOption = None,
    port: PortOption = None,
    accounts: Annotated[int, typer.Option(help="Accounts of the simulated book, when one is made.", min=50)] = 2000,
    stop: Annotated[bool, typer.Option("--no-serve", help="End after scoring.")] = False,
) -> None:
    """Do the whole main job, then serve. Without a workspace of your own: on a simulated book."""
    with open_screen(json) as screen:
        folder = workspace_folder(workspace)
        if workspace is None and folder == DEMO and not (DEMO / CONFIG_NAME).exists():
            _simulate(screen, DEMO, accounts)
        opened = load_workspace(folder, process_environment)
        done = [_run(screen, name, opened).to_json() for name in STEPS]
        if stop:
            screen.result({"status": "done", "steps": done})
        else:
            _serve(screen, opened, host, port, done=done)


def _simulate(screen: Screen, folder: Path, accounts: int) -> None:
    from features.simulate import WorldSettings, simulate, write_world

    if folder.exists():
        todo = f"Remove {folder}, or name a workspace of your own with --workspace."
        raise WorkspaceError(explain("there is something else where the simulated book would be made", given=folder, todo=todo))
    started = time.monotonic()
    with screen.progress("simulate") as on_progress, replace_folder(folder) as temporary:
        on_progress(f"{accounts:,} accounts", 0, 1)
        world = simulate(WorldSettings(accounts=accounts))
        write_world(world, temporary)
    rows = sum(len(table) for table in world.tables.values())
    line = f"a book of {accounts:,} accounts, {len(world.tables)} tables, {rows:,} rows"
    screen.done(StepResult("simulate", unchanged=False, seconds=time.monotonic() - started, summary={}, line=line, place=folder))


def _serve(screen: Screen, workspace: Workspace, host: str | None, port: int | None, *, done: list[dict[str, object]]) -> None:
    from serving.app import sign_in_links
    from serving.service import require_port, serve

    host, port = host or workspace.config.serving.host, port or workspace.config.serving.port
    require_port(host, port)
    address = f"http://{host}:{port}"
    links = sign_in_links(workspace, address=workspace.config.serving.address or address)
    screen.say(f"[bold]Serving at {address}[/bold]  (Ctrl+C ends it)")
    screen.say(f"  vendor:   {links.vendor}")
    if links.partner:
        screen.say(f"  partner:  {links.partner}  ({escape(str(links.partner_name))})")
    if not (workspace.scores / "CURRENT").exists():
        screen.say("There are no scores yet, so nothing can be shown. Run `renewcast score`: they are served as soon as they are there.")
    screen.result({"status": "serving", "address": address, "vendor_link": links.vendor, "partner_link": links.partner, "steps": done})
    sys.stdout.flush()
    serve(workspace, host=host, port=port)


@app.command()
def links(
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    host: HostOption = None,
    port: PortOption = None,
    who: Annotated[str | None, typer.Option("--as", help="Only one link: for vendor, or partner:<partner_id>.")] = None,
    role: Annotated[str, typer.Option(help="What the reader of that link may do: administrator, analyst or csm.")] = "csm",
    person: Annotated[str, typer.Option(help="Who the reader is, as the journal is to name them.")] = "",
) -> None:
    """Print fresh sign-in links for a service that is running: one for the vendor, one for the partner with the most accounts."""
    from serving.app import sign_in_links
    from serving.callers.credentials import opened_identity
    from serving.permissions.caller import parse_caller

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        serving = opened.config.serving
        address = f"http://{host or serving.host}:{port or serving.port}"
        if host is None and port is None:
            address = serving.address or address
        if who is not None:
            with opened_identity(opened) as identity:
                token = identity.sign_in_token(parse_caller(who), role=cli_keys.role_named(role), subject=person)
            screen.say(f"For {escape(who)}, good for one browser within a day:")
            screen.hand_over(f"{address}/sign-in?token={token}")
            screen.result({"link": f"{address}/sign-in?token={token}", "caller": who, "role": role, "person": person})
            return
        made = sign_in_links(opened, address=address)
        screen.say("For the vendor, good for one browser within a day:")
        screen.hand_over(made.vendor)
        if made.partner:
            screen.say(f"For the partner {escape(str(made.partner_name))}:")
            screen.hand_over(made.partner)
        screen.result({"vendor_link": made.vendor, "partner_link": made.partner})


@app.command()
def reference(workspace: WorkspaceOption = None) -> None:
    """Print the reference page of the workspace's features as Markdown."""
    from features.catalogue import read_catalogue
    from features.reference import render_reference

    with open_screen(json=False):
        file = open_workspace(workspace).snapshots / "catalogue.json"
        if not file.exists():
            raise WorkspaceError(
                explain("the features of this workspace have not been computed yet", given=file, todo="Run `renewcast features`.")
            )
        print(render_reference(read_catalogue(file)))  # noqa: T201
