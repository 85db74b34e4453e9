"""The catalogue: the features of one workspace, in order, and the file in which they travel with a model.

This module is light on purpose: serving reads catalogues without loading a query engine. `features.families` builds them.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import PackageError, explain
from features.feature import Feature, Window
from features.ledger import fingerprint

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Catalogue", "read_catalogue"]


@dataclass(frozen=True)
class Catalogue:
    """An ordered set of features with unique names.

    Examples
    --------
    >>> empty = Catalogue(())
    >>> empty.names, len(empty.hash)
    ((), 64)
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two features share a name: {', '.join(twice)}")

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the matrix' columns."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that is declared about the features."""
        return fingerprint(*[_declared(feature) for feature in self.features])

    @cached_property
    def _by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    def feature(self, name: str) -> Feature:
        """Return the feature of that name, or raise KeyError."""
        return self._by_name[name]

    def to_json(self) -> str:
        """Return the catalogue as JSON, all but the expressions."""
        return self._json

    @cached_property
    def _json(self) -> str:
        return json.dumps({"hash": self.hash, "features": [_declared(feature) for feature in self.features]}, indent=1)


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue that `Catalogue.to_json` wrote.

    The features' expressions are not in the file: they word and share, but cannot be computed.

    Raises
    ------
    PackageError
        If the file is damaged: it cannot be read, or its hash is not that of the features in it.
    """
    damaged = explain("the feature catalogue is damaged", given=path, todo="Run `renewcast features` and `renewcast train` again.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        catalogue = Catalogue(tuple(_restored(entry) for entry in stored["features"]))
        mark = stored["hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(damaged) from error
    if catalogue.hash != mark:
        raise PackageError(damaged)
    return catalogue


def _declared(feature: Feature) -> dict[str, Any]:
    source = feature.source
    return {
        "name": feature.name,
        "family": feature.family,
        "unit": feature.unit,
        "meaning": feature.meaning,
        "sentence": feature.sentence,
        "source": source and asdict(source),
        "level": feature.level,
        "needs": sorted(feature.needs),
        "inputs": list(feature.inputs),
        "empty": feature.empty,
        "kind": feature.kind,
        "direction": dict(feature.direction),
        "sensitivity": feature.sensitivity,
        "actionable": feature.actionable,
    }


def _restored(entry: dict[str, Any]) -> Feature:
    source = entry["source"]
    changed = {
        "source": source and Window(**(source | {"by": tuple(source["by"])})),
        "needs": frozenset(entry["needs"]),
        "inputs": tuple(entry["inputs"]),
        "expression": _not_computable,
    }
    return Feature(**(entry | changed))


def _not_computable(rows: "ir.Table") -> "ir.Value":
    raise TypeError("a feature that was read from a file can be worded and shared, not computed; build the catalogue instead")
