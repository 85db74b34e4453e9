"""Who is calling, once a credential has shown it: the vendor or a partner, in which role, and what they may do.

All signatures and hashes of credentials hang on one secret in the workspace's state, which only its owner can read.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal, get_args

from serving.permissions.caller import Caller

__all__ = ["ROLES", "SCOPES", "Principal", "RefusedError", "Role", "Scope", "default_scopes", "read_secret"]

Scope = Literal["accounts:read", "predict", "export", "contribute", "feedback", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

Role = Literal["administrator", "analyst", "csm"]
ROLES: tuple[Role, ...] = get_args(Role)

_ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    "administrator": frozenset(SCOPES),
    "analyst": frozenset({"accounts:read", "predict", "export", "contribute", "feedback"}),
    "csm": frozenset({"accounts:read", "predict", "feedback"}),
}
_VENDOR_SCOPES: frozenset[Scope] = frozenset({"metrics", "admin"})


class RefusedError(Exception):
    """A credential that is not good; its message is for the journal, not for the caller."""


@dataclass(frozen=True)
class Principal:
    """A caller who has shown who it is.

    Parameters
    ----------
    credential
        What it showed, as the journal calls it: `key:<id>`, `session:<start of its hash>` or `token:<id>`.
    scopes
        What the credential is good for.
    role
        What the person or the application does in its company.
    subject
        Who acts: the label of a key, the subject of a token, the person for whom a sign-in link was made.
    """

    caller: Caller
    credential: str
    scopes: frozenset[Scope]
    role: Role
    subject: str


def default_scopes(role: Role, caller: Caller) -> frozenset[Scope]:
    """Return what a role may do; the scopes of whoever runs the service are for the vendor alone.

    Examples
    --------
    >>> sorted(default_scopes("csm", Caller("p1")))
    ['accounts:read', 'feedback', 'predict']
    >>> default_scopes("administrator", Caller(None)) - default_scopes("administrator", Caller("p1")) == {"metrics", "admin"}
    True
    """
    return _ROLE_SCOPES[role] if caller.is_vendor else _ROLE_SCOPES[role] - _VENDOR_SCOPES


def read_secret(path: Path) -> bytes:
    """Return the secret in the file; if there is no file, make one that only its owner can read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # linked into place when it is complete, so that of two workers that start at once both read the same secret
        with NamedTemporaryFile(dir=path.parent) as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            with suppress(FileExistsError):
                path.hardlink_to(file.name)
    return path.read_bytes()
