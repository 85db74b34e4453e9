"""Writes a guessed workspace as a commented `renewcast.toml`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.contracts import CONTRACT

__all__ = ["GuessedColumn", "GuessedSource", "Proposal", "write_proposal"]


@dataclass(frozen=True, kw_only=True)
class GuessedColumn:
    """Where a column of the contract comes from, and why that was guessed."""

    column: str | None = None
    sql: str | None = None
    constant: str | None = None
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class GuessedSource:
    """What a file was guessed to be.

    Parameters
    ----------
    points
        How well it fits, to choose between guesses.
    attributes
        Account attributes, by column.
    refused
        Columns that are no attributes because they may be known only later.
    ambiguous
        Columns of the contract whose dates can be read in two ways.
    currencies
        Some of the currencies of its amounts.
    """

    table: str
    location: str
    points: int
    columns: Mapping[str, GuessedColumn]
    attributes: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    query: str | None = None
    lookups: Mapping[str, str] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A guessed workspace.

    Parameters
    ----------
    text
        The commented config.
    guessed
        What was guessed, a line each.
    unknown
        What could not be guessed, or must be looked at, a line each.
    """

    text: str
    guessed: tuple[str, ...]
    unknown: tuple[str, ...]


def write_proposal(
    folder: Path,
    chosen: Mapping[str, Sequence[GuessedSource]],
    *,
    left: Sequence[str],
    unreadable: Mapping[str, str],
    doubts: Sequence[str],
) -> Proposal:
    """Compose the config and the two lists.

    Parameters
    ----------
    left
        Files that nothing is taken from.
    unreadable
        Files that cannot be read, with the reason.
    doubts
        What else could not be guessed.
    """
    currencies = sorted({code for sources in chosen.values() for source in sources for code in source.currencies} - {"USD"})
    parts = [_head(folder), *([_rates(currencies)] if currencies else [])]
    guessed: list[str] = []
    unknown = [*doubts, *(f"{name} cannot be read: {why}" for name, why in unreadable.items())]
    for table in CONTRACT:
        sources = chosen.get(table, [])
        if not sources:
            needed = "needed, but nothing" if CONTRACT[table].required else "nothing"
            parts.append(f"# [tables.{table}]: {needed} was found; {CONTRACT[table].meaning}\n")
            unknown.extend([f"{table}: needed, but no file looks like it"] if CONTRACT[table].required else [])
            continue
        parts.append(_table(table, sources))
        for source in sources:
            names = ", ".join(f"{name} = {guess.column or guess.sql or repr(guess.constant)}" for name, guess in source.columns.items())
            guessed.append(f"{table}: {source.location} ({names or source.query})")
            unknown.extend(f"{table}.{name}: is the day or the month first? Give it a time_format" for name in source.ambiguous)
            unknown.extend(f"{source.location}: {name} is not used, because it may be known only later" for name in source.refused)
    unknown.extend(f"what one {code} is worth in USD: complete [currencies]" for code in currencies)
    unknown.extend(f"{name}: not used" for name in left)
    parts.append(_tail("subscriptions" in chosen, left))
    return Proposal(text="\n".join(parts), guessed=tuple(guessed), unknown=tuple(dict.fromkeys(unknown)))


def _head(folder: Path) -> str:
    return (
        "# Written by `renewcast init` from the names and values in your files. Read it, correct it, then run `renewcast check`.\n\n"
        f"[workspace]\nname = {_string(folder.absolute().name)}\ndata = {_string(str(folder.absolute()))}\n"
        'currency = "USD"\n# quarantine_limit = 0.05  # the share of a table\'s rows that may be broken\n'
    )


def _rates(currencies: Sequence[str]) -> str:
    lines = "".join(f"# {code} =\n" for code in currencies)
    return f"# what one unit is worth in the workspace's currency\n[currencies]\n{lines}"


def _table(table: str, sources: Sequence[GuessedSource]) -> str:
    lines = [f"# {CONTRACT[table].meaning}"]
    several = len(sources) > 1
    if several:
        lines.append(f"[tables.{table}]")
    for source in sources:
        name = f"tables.{table}.sources" if several else f"tables.{table}"
        lines.extend([""] if several else [])
        lines.append(f"[[{name}]]" if several else f"[{name}]")
        lines.append(f"source = {_string(source.location)}")
        if source.query:
            lines.append(f"query = {_string(source.query)}")
        if source.lookups:
            listed = ", ".join(f"{key} = {_string(value)}" for key, value in source.lookups.items())
            lines.append(f"lookups = {{ {listed} }}")
        lines.extend(_columns(name, table, source))
    return "\n".join(lines) + "\n"


def _columns(name: str, table: str, source: GuessedSource) -> list[str]:
    lines = ["", f"[{name}.columns]"] if source.columns else []
    for key, guess in source.columns.items():
        comment = "  # " + re.sub(r"\s+", " ", guess.evidence) if guess.evidence else ""
        lines.append(f"{key} = {_mapped(guess)}{comment}")
    missing = [key for key in CONTRACT[table].columns if key not in source.columns]
    if missing and source.columns:
        lines.append(f"# not found: {', '.join(missing)}")
    if source.attributes:
        lines += ["", f"[{name}.attributes]", *(f"{_key(column)} = {_string(kind)}" for column, kind in source.attributes.items())]
    return lines


def _mapped(guess: GuessedColumn) -> str:
    if guess.column is not None:
        return _string(guess.column)
    return f"{{ sql = {_string(guess.sql)} }}" if guess.sql is not None else f"{{ constant = {_string(guess.constant or '')} }}"


def _tail(has_subscriptions: bool, left: Sequence[str]) -> str:
    kind = "subscription" if has_subscriptions else "usage"
    unused = "".join(f"# not used: {name}\n" for name in left)
    return f'{unused}\n[targets]\nkind = "{kind}"\nhorizon_days = 90\n\n[cutoffs]\nevery = "month"\n'


def _string(text: str) -> str:
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    # TOML's basic strings have the escapes of JSON
    return json.dumps(text, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)
