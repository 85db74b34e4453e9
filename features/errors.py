"""Every error that Renewcast raises on purpose, in one tree.

RenewcastError
|-- ConfigError            renewcast.toml cannot be read or says something impossible
|-- WorkspaceError         the workspace folder cannot be used (not writable, locked, a step is missing)
|-- SourceError            a table's source cannot be opened or read
|-- ContractError          a table lacks a column, or a column has the wrong type
|-- QuarantineError        more rows of a table are broken than the workspace allows
|-- NotEnoughDataError     too few accounts, cutoffs or positives for what was asked
|-- FeatureError           a feature is not what its twin computes
|-- PackageError           a model package is damaged, or does not fit the features at hand
|-- RegistryError          the model registry does not answer, or does not hold what was asked
|-- ServiceError           the service cannot start (no scores yet, port in use)
|-- IssuerDownError        the issuer of bearer tokens does not hand out its keys
|-- StoreDownError         the operational database does not answer, or cannot write

A message has four parts: what is wrong, what was given, what is allowed, what to do next. Compose it with `explain`.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "ContractError",
    "FeatureError",
    "IssuerDownError",
    "NotEnoughDataError",
    "PackageError",
    "QuarantineError",
    "RegistryError",
    "RenewcastError",
    "ServiceError",
    "SourceError",
    "StoreDownError",
    "WorkspaceError",
    "explain",
    "nearest",
]


class RenewcastError(Exception):
    """An error whose message tells a user what to do; the command prints it without a traceback."""


class ConfigError(RenewcastError):
    """The configuration cannot be read or says something impossible."""


class WorkspaceError(RenewcastError):
    """The workspace folder cannot be used as asked."""


class SourceError(RenewcastError):
    """A table's source cannot be opened or read."""


class ContractError(RenewcastError):
    """A table lacks a column that the contract needs, or a column has the wrong type."""


class QuarantineError(RenewcastError):
    """More rows of a table are broken than the workspace allows."""


class NotEnoughDataError(RenewcastError):
    """Too few accounts, cutoffs or positives for what was asked."""


class FeatureError(RenewcastError):
    """A feature is not what its twin computes."""


class PackageError(RenewcastError):
    """A model package is damaged, or does not fit the features at hand."""


class RegistryError(RenewcastError):
    """The model registry does not answer, or does not hold what was asked."""


class ServiceError(RenewcastError):
    """The service cannot start or cannot answer."""


class IssuerDownError(RenewcastError):
    """The issuer of bearer tokens does not hand out its keys, and none are known from before."""


class StoreDownError(RenewcastError):
    """The operational database does not answer, or cannot write; what was asked may be asked again."""


def explain(wrong: str, *, given: object = None, allowed: object = None, todo: str = "") -> str:
    """Compose an error message of up to four parts, each on a line of its own.

    Examples
    --------
    >>> print(explain("horizon_days is not a number of days", given="ninety", allowed="1 to 730", todo="Write horizon_days = 90."))
    horizon_days is not a number of days
      given:   ninety
      allowed: 1 to 730
      next:    Write horizon_days = 90.
    """
    parts = [wrong]
    for label, text in (("given:  ", given), ("allowed:", allowed), ("next:   ", todo)):
        if text is not None and text != "":
            indented = str(text).replace("\n", "\n           ")
            parts.append(f"  {label} {indented}")
    return "\n".join(parts)


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or nothing.

    Examples
    --------
    >>> nearest("horizon_day", ["horizon_days", "lead_days"])
    "did you mean 'horizon_days'?"
    >>> nearest("xyz", ["horizon_days"])
    ''
    """
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""
