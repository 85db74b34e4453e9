"""The policy: which callers may read which fields and features, and do what, as a vendor writes it down in one file.

The file `policy.toml` beside this module is the default and names everything that there is to decide; the `policy.toml` of a workspace
changes what it names and nothing else. Three kinds of words say who may see something: `shared` is everybody whose account it is,
`vendor` the vendor alone, and a list such as `["gold"]` the partners of those tiers. A field that no line names cannot leave.

Some things no file can share: another partner's accounts have no line, and the numbers that keep a part or a peer from being worked out
can only be made stricter.
"""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from features.catalogue import read_catalogue
from features.errors import ConfigError, explain, nearest
from features.feature import Family, Feature
from features.section import Section
from features.workspace import Workspace

__all__ = [
    "DEFAULT_FILE",
    "POLICY_NAME",
    "Action",
    "Audience",
    "Note",
    "Numbers",
    "Policy",
    "admits",
    "default_policy",
    "load_policy",
    "parse_policy",
    "read_policy",
    "refuse_unknown",
]

POLICY_NAME = "policy.toml"
"""The workspace's own policy, beside its `renewcast.toml`."""

DEFAULT_FILE = Path(__file__).with_name(POLICY_NAME)
"""The default, with a comment on each choice."""

Audience = Literal["always", "shared", "vendor"] | frozenset[str]
"""Who may see something: every partner whose account it is, the vendor alone, or the partners of some tiers (and the vendor).

`always` is `shared` for fields without which an answer would be none; no file can keep them back.
"""

Action = Literal["what_if", "export", "contribute", "feedback", "see_retention"]
"""What a partner may be allowed to do."""

Note = Literal["vendor_plays", "vendor_notes"]
"""What the vendor's people write down about an account, and partners may be shown."""

ALWAYS: Literal["always"] = "always"
EXTENDS = "extends"
_MOST_LISTED = 40


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of the policy.

    Parameters
    ----------
    named_drivers
        How many drivers an explanation names; the rest is merged.
    fewest_merged
        With fewer confidential parts than this in the merged one, no size is given: they could be guessed from their sum.
    dominant_share
        A confidential part above this share of all confidential ones, by absolute size, is as good as shown by their sum.
    peers_needed
        A median or an average over fewer accounts than this would say too much about one of them.
    """

    named_drivers: int
    fewest_merged: int
    dominant_share: float
    peers_needed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """Who sees what.

    Parameters
    ----------
    tiers
        The partners' tiers that rules may name.
    families, features
        Audiences of features where they differ from the catalogue's sensitivity; a feature's own line goes before its family's.
    fields
        By response record, the audience of each of its fields.
    """

    tiers: tuple[str, ...]
    numbers: Numbers
    actions: Mapping[Action, Audience]
    notes: Mapping[Note, Audience]
    families: Mapping[Family, Audience]
    features: Mapping[str, Audience]
    fields: Mapping[str, Mapping[str, Audience]]
    _open_fields: dict[str | None, dict[str, frozenset[str]]] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that the policy says: two policies with the same one show the same."""
        content = {name: getattr(self, name) for name in ("tiers", "actions", "notes", "families", "features", "fields")}
        text = json.dumps(content | {"numbers": asdict(self.numbers)}, sort_keys=True, default=sorted)
        return sha256(text.encode()).hexdigest()

    def audience_of(self, feature: Feature) -> Audience | Literal["partner"]:
        """Return who may see a feature; `partner` is the vendor and the partner that supplied it."""
        return self.features.get(feature.name) or self.families.get(feature.family) or feature.sensitivity

    def open_fields(self, record: str, *, tier: str | None) -> frozenset[str]:
        """Return the fields of a record that partners of a tier may read.

        Raises
        ------
        KeyError
            If the policy does not name the record.
        """
        known = self._open_fields.get(tier)
        if known is None:
            known = self._open_fields[tier] = {
                name: frozenset(key for key, audience in audiences.items() if admits(audience, tier))
                for name, audiences in self.fields.items()
            }
        return known[record]


def admits(audience: Audience, tier: str | None) -> bool:
    """Tell whether partners of a tier belong to the audience.

    Examples
    --------
    >>> admits("shared", None), admits("vendor", "gold"), admits(frozenset({"gold"}), "gold")
    (True, False, True)
    """
    return audience in ("shared", "always") or (audience != "vendor" and tier in audience)


def load_policy(workspace: Workspace) -> Policy:
    """Read the default policy and what the workspace's own file changes in it.

    Raises
    ------
    ConfigError
        If the workspace's file cannot be read, or names something that there is not.
    """
    return read_policy(workspace)[1]


def read_policy(workspace: Workspace) -> tuple[str | None, Policy]:
    """Return the text of the workspace's own policy, None if it has none, and the policy that holds with it.

    Raises
    ------
    ConfigError
        If the file cannot be read, or names something that there is not.
    """
    path = workspace.folder / POLICY_NAME
    if not path.exists():
        return None, default_policy()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(explain(f"{path} cannot be read: {error}", todo="Correct it, or remove it to use the default.")) from error
    catalogue = workspace.snapshots / "catalogue.json"
    known = read_catalogue(catalogue).names if catalogue.exists() else None
    return text, parse_policy(text, path, features=known)


def parse_policy(text: str, path: Path = DEFAULT_FILE, *, features: Collection[str] | None = None) -> Policy:
    """Read a workspace's policy from its text.

    Parameters
    ----------
    path
        Where the text is from, for messages.
    features
        The names of the features that there are; any name is taken if they are not known.

    Raises
    ------
    ConfigError
        If the text is no TOML, or names something that there is not.
    """
    return _overlaid(_default_values(), _parsed(text, path), path, features)


@cache
def default_policy() -> Policy:
    """Return the policy of a workspace without a file of its own."""
    return _overlaid(_default_values(), {}, DEFAULT_FILE, None)


@cache
def _default_values() -> Mapping[str, Any]:
    return _parsed(DEFAULT_FILE.read_text(encoding="utf-8"), DEFAULT_FILE)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(explain(f"{path} is not TOML: {error}", todo="Correct the line that it names.")) from error


def _overlaid(base: Mapping[str, Any], own: Mapping[str, Any], path: Path, known: Collection[str] | None) -> Policy:
    """Return the policy of the default's values with a workspace's own laid over them."""
    given, default = Section(path, "", own), Section(DEFAULT_FILE, "", base)
    tiers = given.section("partners").texts("tiers", default.section("partners").texts("tiers"))
    reader = _Audiences(tiers)
    policy = Policy(
        tiers=tiers,
        numbers=_numbers(given.section("numbers"), default.section("numbers")),
        actions=reader.table(given.section("actions"), default.section("actions").values),
        notes=reader.table(given.section("notes"), default.section("notes").values),
        families=reader.named(given.section("families"), get_args(Family)),
        features=reader.free(given.section("features")) if known is None else reader.named(given.section("features"), known),
        fields=_fields(given, default.section("fields").values, reader),
    )
    given.refuse_others()
    return policy


@dataclass(frozen=True)
class _Audiences:
    """Reads audiences, which may name these tiers."""

    tiers: tuple[str, ...]

    def table(self, own: Section, base: Mapping[str, Any]) -> dict[Any, Audience]:
        """Return the default's audiences with the workspace's own over them; only what the default names can be named."""
        refuse_unknown(own, base)
        return {key: ALWAYS if base[key] == ALWAYS and key not in own else self.read(own, key, base) for key in base}

    def named(self, own: Section, known: Collection[str]) -> dict[Any, Audience]:
        """Return the audiences of some of the known names."""
        refuse_unknown(own, known)
        return self.free(own)

    def free(self, own: Section) -> dict[Any, Audience]:
        """Return the audiences of whatever names there are."""
        return {key: self.read(own, key, {}) for key in own.values}

    def read(self, section: Section, key: str, base: Mapping[str, Any]) -> Audience:
        """Return one audience, the default's where the section has none."""
        value = section.get(key, base.get(key))
        if isinstance(value, frozenset):  # what another record's line says
            return value
        if base.get(key) == ALWAYS:
            raise section.wrong(key, "is part of every answer of its kind and cannot be kept back", given=value, todo="Remove the line.")
        if value in ("shared", "vendor"):
            return "shared" if value == "shared" else "vendor"
        if not isinstance(value, list) or not value or not all(isinstance(tier, str) for tier in value):
            allowed = '"shared", "vendor", or a list of tiers such as ["gold"]'
            raise section.wrong(key, "does not say who may see it", given=value, allowed=allowed)
        for tier in value:
            if tier not in self.tiers:
                todo = nearest(tier, self.tiers) or "Add it to tiers in [partners]."
                raise section.wrong(key, "names a tier that there is not", given=tier, allowed=", ".join(self.tiers) or "none", todo=todo)
        return frozenset(value)


def refuse_unknown(section: Section, known: Collection[str]) -> None:
    """Raise ConfigError for a key that is not known, naming the nearest one that is."""
    for key in section.values:
        if key not in known:
            allowed = ", ".join(sorted(known)) if len(known) <= _MOST_LISTED else f"one of {len(known)} names"
            raise section.wrong(key, "is not known here", allowed=allowed or "nothing", todo=nearest(key, known) or "Remove it.")


def _numbers(own: Section, base: Section) -> Numbers:
    refuse_unknown(own, base.values)
    return Numbers(
        named_drivers=own.whole("named_drivers", base.get("named_drivers"), low=1, high=50),
        fewest_merged=own.whole("fewest_merged", base.get("fewest_merged"), low=base.get("fewest_merged")),
        dominant_share=own.number("dominant_share", base.get("dominant_share"), low=0.4, high=base.get("dominant_share")),
        peers_needed=own.whole("peers_needed", base.get("peers_needed"), low=base.get("peers_needed")),
    )


def _fields(given: Section, base: Mapping[str, Any], reader: _Audiences) -> dict[str, dict[str, Audience]]:
    """Return the audience of each record's fields: its own line, else the line of fields of this name everywhere, else the default."""
    own, everywhere = given.section("fields"), given.section("everywhere")
    refuse_unknown(own, base)
    named = {name for lines in base.values() for name, audience in lines.items() if name != EXTENDS and audience != ALWAYS}
    anywhere = reader.named(everywhere, named)
    fields: dict[str, dict[str, Audience]] = {}
    for record, lines in base.items():
        inherited = fields[lines[EXTENDS]] if EXTENDS in lines else {}
        default = {name: audience if audience == ALWAYS else anywhere.get(name, audience) for name, audience in lines.items()}
        default.pop(EXTENDS, None)
        fields[record] = reader.table(own.section(record), inherited | default)
    return fields
