"""Commands about the policy: start one, check it, and see an account as a partner would."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from features.clock import parse_instant
from features.errors import ConfigError, ServiceError, explain, nearest
from features.ledger import replace_file
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace

if TYPE_CHECKING:
    from serving.answers.disclosure import Disclosure, ScoreDisclosure
    from serving.permissions.caller import Caller
    from serving.scores.scoring import ScoreSet

__all__ = ["app", "check_policy", "init_policy", "show_policy"]

app = typer.Typer(no_args_is_help=True, help="Who sees what: the rules by which partners are told about accounts.")

_EFFECTS = {"loosens": "[yellow]loosens[/yellow]", "tightens": "tightens", "changes": "changes"}
_DOUBTS = {
    "too few": "fewer than {fewest} confidential reasons move this score, so their sum would say too much",
    "one dominates": "one confidential reason makes up more than {share:.0%} of them, so their sum would say too much",
}


@app.command("init")
def init_policy(
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the policy that is there.")] = False,
) -> None:
    """Write a commented policy.toml into the workspace; every line of it is commented out, so it changes nothing yet."""
    from serving.permissions.policy import POLICY_NAME
    from serving.permissions.policy_lines import policy_template

    with open_screen(json) as screen:
        path = open_workspace(workspace).folder / POLICY_NAME
        if path.exists() and not replace:
            raise ConfigError(explain("there is a policy already", given=path, todo="Edit it, or overwrite it with --replace."))
        with replace_file(path) as temporary:
            temporary.write_text(policy_template(), encoding="utf-8")
        screen.say(f"Wrote {escape(str(path))}. Uncomment what shall differ, then run `renewcast policy check`.")
        screen.result({"policy": str(path)})


@app.command("check")
def check_policy(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Read the workspace's policy, refuse what cannot be, and say where it differs from the default."""
    from serving.permissions.partner_facts import read_partners
    from serving.permissions.policy import POLICY_NAME, load_policy
    from serving.permissions.policy_lines import differences

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        path = opened.folder / POLICY_NAME
        policy = load_policy(opened)
        found = list(differences(policy))
        where = str(path) if path.exists() else "the default, because the workspace has no policy.toml"
        screen.say(f"The policy is good: {escape(where)}; {len(found)} line{'' if len(found) == 1 else 's'} unlike the default.")
        for one in found:
            screen.say(f"  {_EFFECTS[one.effect]}  {escape(one.line)}: {escape(one.value)}, by default {escape(one.default)}")
        tiers = {partner.tier for partner in read_partners(opened.book_tables)} - {None}
        unused = sorted(set(policy.tiers) - tiers) if tiers else []
        if unused:
            screen.say(f"[yellow]look at[/yellow]  no partner has the tier {escape(', '.join(unused))}")
        screen.result(
            {"policy": where, "fingerprint": policy.fingerprint, "differences": [asdict(one) for one in found], "unused_tiers": unused}
        )


@app.command("show")
def show_policy(
    who: Annotated[str, typer.Option("--as", help="vendor, or partner:<partner_id>.")],
    account: Annotated[str, typer.Option(help="Id of an account that is scored.")],
    at: Annotated[str | None, typer.Option(help="Instant to ask about, such as 2026-01-31T12:00:00Z; now if not given.")] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a caller is told about an account, what is kept from it, and why."""
    from serving.answers.disclosure import disclose
    from serving.permissions.caller import parse_caller
    from serving.permissions.policy import load_policy
    from serving.scores.scoring import load_score_set
    from serving.scores.sharing import View

    with open_screen(json) as screen:
        opened, caller = open_workspace(workspace), parse_caller(who)
        policy, score_set = load_policy(opened), load_score_set(opened.scores)
        row = score_set.index.get(account)
        if row is None:
            raise ServiceError(explain("no such account is scored", given=account, todo=nearest(account, score_set.index)))
        view = View(caller, _tier(score_set, caller), policy, _instant(at))
        found = disclose(score_set, row, view)
        for line in _lines(found, fewest=policy.numbers.fewest_merged, share=policy.numbers.dominant_share):
            screen.say(line)
        screen.result(asdict(found) if found.visible else {"caller": found.caller, "account_id": account, "visible": False})


def _tier(score_set: "ScoreSet", caller: "Caller") -> str | None:
    if caller.partner_id is None:
        return None
    partner = score_set.partners.get(caller.partner_id)
    if partner is None:
        todo = nearest(caller.partner_id, score_set.partners)
        raise ServiceError(explain("the table of partners does not have this one", given=caller.partner_id, todo=todo))
    return partner.tier


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(tzinfo=None)
    try:
        return parse_instant(text)
    except ValueError as error:
        raise ConfigError(explain("this is no instant", given=text, todo="Write it like 2026-01-31T12:00:00Z.")) from error


def _lines(found: "Disclosure", *, fewest: int, share: float) -> Iterator[str]:
    tier = f" (tier {escape(found.tier)})" if found.tier else ""
    manager = f"managed by {escape(found.partner)}" if found.partner else "managed by no partner"
    yield f"[bold]{escape(found.caller)}{tier} and account {escape(found.account_id)}[/bold], {found.at:%Y-%m-%d %H:%M} UTC; {manager}"
    if not found.visible:
        yield "The account does not exist for this caller: every address answers as for an id that was never given."
        return
    for score in found.scores:
        yield from _score_lines(score, fewest=fewest, share=share)
    if found.fields:
        yield "[bold]fields that are null[/bold]"
        for field in found.fields:
            yield f"  {escape(field.field)}: for {escape(field.readers)}"
    enough = "shown" if found.peers >= found.peers_needed else "kept back"
    yield f"[bold]peers[/bold]  {enough}: {found.peers} accounts in the segment, {found.peers_needed} needed"
    yield f"[bold]may[/bold]    {', '.join(found.may) or 'nothing else'}"
    if found.may_not:
        yield f"[bold]may not[/bold]  {', '.join(found.may_not)}"
    yield f"[bold]reads[/bold]  {', '.join(found.notes) or 'nothing that the vendor wrote down'}"


def _score_lines(score: "ScoreDisclosure", *, fewest: int, share: float) -> Iterator[str]:
    sizes = "sizes are exact"
    if score.doubts is not None:
        sizes = f"sizes are withheld: {_DOUBTS[score.doubts].format(fewest=fewest, share=share)}"
    yield f"[bold]{score.target}[/bold]  {sizes}"
    for sentence in score.named:
        yield f"  told      {escape(sentence)}"
    by_rule = sorted(score.hidden, key=lambda feature: (feature.because, feature.rule))
    for (because, rule), features in groupby(by_rule, key=lambda feature: (feature.because, feature.rule)):
        names = [feature.name if feature.moves else f"{feature.name} (does not move this score)" for feature in features]
        yield f"  kept back  {escape(', '.join(names))}: {escape(because)}, {escape(rule)}"
