"""Commands about who may call: the keys of applications, and sign-in links for people."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from features.errors import ConfigError, explain, nearest
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace

if TYPE_CHECKING:
    from serving.callers.identity import Role, Scope
    from serving.callers.keys import ApiKey

__all__ = ["app", "issue_key", "list_keys", "revoke_key", "role_named", "rotate_key"]

app = typer.Typer(no_args_is_help=True, help="Keys with which applications call the endpoint.")

_KEY_ID = typer.Argument(help="The key's id: what stands between its first and second underscore.")


@app.command("issue")
def issue_key(
    who: Annotated[str, typer.Option("--as", help="vendor, or partner:<partner_id>.")],
    label: Annotated[str, typer.Option(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="administrator, analyst or csm: what the application may do.")] = "analyst",
    scope: Annotated[list[str] | None, typer.Option(help="What the key is good for, instead of all that its role may do.")] = None,
    days: Annotated[int | None, typer.Option(help="How long it is good; until it is revoked if not given.", min=1)] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Issue a key; it is shown once, only its hash is kept."""
    from serving.app import has_accounts
    from serving.callers.credentials import opened_identity
    from serving.permissions.caller import parse_caller

    with open_screen(json) as screen:
        opened, caller = open_workspace(workspace), parse_caller(who)
        lifetime = None if days is None else timedelta(days=days)
        with opened_identity(opened) as identity:
            key = identity.issue_key(
                caller, label=label, role=role_named(role), scopes=None if not scope else _scopes(scope), lifetime=lifetime
            )
        if caller.partner_id is not None and not has_accounts(opened, caller.partner_id):
            screen.say(f"[yellow]look at[/yellow]  the key shows nothing yet: no scored account is assigned to {escape(who)}")
        screen.say("Keep this key, it is not shown again:")
        screen.hand_over(key)
        screen.result({"key": key, "caller": who, "label": label, "role": role})


@app.command("list")
def list_keys(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the keys that were issued: whose, what for, in which role, and how long they are good."""
    from serving.callers.credentials import opened_identity
    from serving.records.tables import now

    with open_screen(json) as screen:
        with opened_identity(open_workspace(workspace)) as identity:
            known = identity.keys.known()
        table = Table("key", "caller", "role", "label", "issued", "state", box=None, pad_edge=False)
        for key in known:
            cells = (key.key_id, key.caller.name, key.role, key.label, f"{key.created_at:%Y-%m-%d}", _state(key))
            table.add_row(*map(escape, cells))
        screen.say(table if known else "No key has been issued yet: renewcast keys issue --as vendor --label crm")
        screen.result({"keys": [_summary(key) | {"state": key.state(now())} for key in known]})


@app.command("rotate")
def rotate_key(
    key_id: Annotated[str, _KEY_ID],
    overlap_hours: Annotated[float, typer.Option(help="How long the old key stays good beside the new one.", min=0)] = 24,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Issue a key that takes over from another one; the old one stays good for a while."""
    from serving.callers.credentials import opened_identity

    with open_screen(json) as screen:
        with opened_identity(open_workspace(workspace)) as identity:
            key = identity.rotate_key(key_id, overlap=timedelta(hours=overlap_hours))
            old = next(known for known in identity.keys.known() if known.key_id == key_id)
        screen.say(f"{escape(key_id)} is good until {old.expires_at:%Y-%m-%d %H:%M} UTC. Keep the new key, it is not shown again:")
        screen.hand_over(key)
        screen.result({"key": key, "replaces": key_id, "old_expires_at": old.expires_at})


@app.command("revoke")
def revoke_key(key_id: Annotated[str, _KEY_ID], workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Make a key useless from now on; a service that runs notices within seconds."""
    from serving.callers.credentials import opened_identity

    with open_screen(json) as screen:
        with opened_identity(open_workspace(workspace)) as identity:
            revoked = identity.revoke_key(key_id)
        if not revoked:
            todo = "Look at `renewcast keys list`, or at the key: rk_<id>_..."
            raise ConfigError(explain("there is no key with this id, or it is revoked already", given=key_id, todo=todo))
        screen.say(f"Revoked {escape(key_id)}.")
        screen.result({"revoked": key_id})


def _state(key: "ApiKey") -> str:
    from serving.records.tables import now

    state = key.state(now())
    if state != "live" or key.expires_at is None:
        return state
    until = f"until {key.expires_at:%Y-%m-%d %H:%M}"
    return f"{until}, then {key.replaced_by}" if key.replaced_by else until


def _summary(key: "ApiKey") -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "caller": key.caller.name,
        "role": key.role,
        "scopes": key.scopes.split(),
        "label": key.label,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "replaced_by": key.replaced_by,
    }


def role_named(text: str) -> "Role":
    """Return the role of this name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from serving.callers.identity import ROLES

    for role in ROLES:
        if text == role:
            return role
    raise ConfigError(explain("there is no such role", given=text, allowed=", ".join(ROLES), todo=nearest(text, ROLES)))


def _scopes(texts: list[str]) -> "list[Scope]":
    from serving.callers.identity import SCOPES

    if unknown := [text for text in texts if text not in SCOPES]:
        raise ConfigError(explain("there is no such scope", given=unknown[0], allowed=", ".join(SCOPES), todo=nearest(unknown[0], SCOPES)))
    return [scope for scope in SCOPES if scope in texts]
