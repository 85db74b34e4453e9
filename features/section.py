"""One section of a TOML file, read key by key, so that every mistake is answered with the file, the key and what would be right."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from features.clock import parse_instant
from features.errors import ConfigError, explain, nearest

__all__ = ["REQUIRED", "VARIABLE", "Section"]

REQUIRED: Any = object()
"""The default of a key that must be given."""

VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
"""How a text refers to the environment: `${NAME}` or `${NAME:-default}`."""


@dataclass
class Section:
    """The keys of one section that were given, and those that were asked for.

    Parameters
    ----------
    file
        The file that the section comes from.
    path
        The section's name in the file, such as `tables.telemetry`; empty for the whole file.
    """

    file: Path
    path: str
    values: Mapping[str, Any]
    _asked: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def named(self, key: str) -> str:
        """Return the key's full name."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, what: str, *, given: object = None, allowed: object = None, todo: str = "") -> ConfigError:
        """Compose the error for a key."""
        return ConfigError(explain(f"{self.file}: {self.named(key)} {what}", given=given, allowed=allowed, todo=todo))

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a value as TOML gave it."""
        self._asked.add(key)
        if key not in self.values and default is REQUIRED:
            raise self.wrong(key, "is missing", given=_listed(self.values), todo=f"Add {key} = ... to [{self.path}].")
        return self.values.get(key, default)

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a text that is not empty."""
        value = self.get(key, default)
        if value is not default and not (isinstance(value, str) and value.strip()):
            raise self.wrong(key, "is not a text", given=_shown(value), todo=f'Write {key} = "...".')
        return value

    def filled(self, key: str, environ: Mapping[str, str], default: Any = None) -> Any:
        """Return a text with what the environment says for its variables; one that is not set is left as it is written."""
        value = self.text(key, default)
        return value if value is default else VARIABLE.sub(lambda found: _filled(found, environ), value)

    def texts(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a list of texts as a tuple."""
        value = self.get(key, default)
        if value is default:
            return value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "is not a list of texts", given=_shown(value), todo=f'Write {key} = ["...", "..."].')
        return tuple(value)

    def choice(self, key: str, allowed: Collection[str], default: Any = REQUIRED) -> Any:
        """Return one of the allowed words."""
        value = self.text(key, default)
        if value is not default and value not in allowed:
            raise self.wrong(key, "is not known", given=_shown(value), allowed=_listed(allowed), todo=nearest(value, allowed))
        return value

    def whole(self, key: str, default: Any = REQUIRED, *, low: int, high: int | None = None) -> Any:
        """Return a whole number within bounds."""
        value = self.get(key, default)
        if value is default:
            return value
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            raise self.wrong(key, "is not a whole number that is allowed here", given=_shown(value), allowed=_range(low, high))
        return value

    def number(self, key: str, default: Any = REQUIRED, *, low: float, high: float | None = None) -> Any:
        """Return a number within bounds, as a float."""
        value = self.get(key, default)
        if value is default:
            return value
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= (high if high is not None else value):
            raise self.wrong(key, "is not a number that is allowed here", given=_shown(value), allowed=_range(low, high))
        return float(value)

    def instant(self, key: str, default: Any = None) -> Any:
        """Return a date or date-time as a naive datetime in UTC."""
        value = self.get(key, default)
        match value:
            case None:
                return None
            case datetime():
                return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            case date():
                return datetime(value.year, value.month, value.day)
            case str():
                try:
                    return parse_instant(value)
                except ValueError:
                    pass
        raise self.wrong(key, "is not a date", given=_shown(value), todo=f"Write {key} = 2025-01-31, or with a time 2025-01-31T08:00:00Z.")

    def section(self, key: str) -> "Section":
        """Return a section below this one; an empty one if it is not there."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "is not a section", given=_shown(value), todo=f"Write a section [{self.named(key)}].")
        return Section(self.file, self.named(key), value)

    def sections(self, key: str) -> "Iterator[Section]":
        """Yield the sections of a list of sections, `[[key]]`."""
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "is not a list of sections", given=_shown(value), todo=f"Write [[{self.named(key)}]] for each of them.")
        for position, item in enumerate(value, start=1):
            yield Section(self.file, f"{self.named(key)}[{position}]", item)

    def refuse_others(self) -> None:
        """Refuse keys that nobody asked for, naming the nearest one that is known.

        Raises
        ------
        ConfigError
            If there is one.
        """
        for key in self.values:
            if key not in self._asked:
                hint = nearest(key, self._asked) or "Remove it."
                raise self.wrong(key, "is not a known key", given=_shown(self.values[key]), allowed=_listed(self._asked), todo=hint)


def _filled(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found["default"] is None:
        return environ.get(found["name"]) or found[0]
    return environ.get(found["name"]) or found["default"]


def _listed(words: Collection[str]) -> str:
    return ", ".join(sorted(words)) or "nothing"


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def _range(low: float, high: float | None) -> str:
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
