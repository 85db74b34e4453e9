"""A policy line by line: the file that a workspace starts from, and where a policy differs from the default, in words."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from serving.permissions.policy import ALWAYS, DEFAULT_FILE, EXTENDS, Audience, Policy, default_policy

__all__ = ["Difference", "audience_words", "differences", "policy_template"]

Effect = Literal["loosens", "tightens", "changes"]


def policy_template() -> str:
    """Return the default policy with every line that decides something commented out, for a workspace to start from.

    Only what is uncommented differs from the default, so what a later version adds or changes reaches the workspace too.
    """
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    decided = re.sub(rf'^(?:\w+ = "{ALWAYS}".*|{EXTENDS} = .*)\n', "", text, flags=re.MULTILINE)  # what no file can change
    sections = re.split(r"^(?=\[)", decided, flags=re.MULTILINE)
    kept = [part if re.search(r"^(?:# )?\w+ = ", part, flags=re.MULTILINE) else _comments(part) for part in sections]
    return re.sub(r"^(?=\w)", "# ", "".join(kept), flags=re.MULTILINE)


def _comments(section: str) -> str:
    """Return the comments in a section without lines; they are about the next one."""
    return "".join(f"{line}\n" for line in section.splitlines() if line.startswith("#"))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One line in which a policy differs from the default.

    Parameters
    ----------
    effect
        Whether more partners see or may do something than by default, or fewer, or whether it is neither.
    """

    line: str
    value: str
    default: str
    effect: Effect


def differences(policy: Policy) -> Iterator[Difference]:
    """Yield where a policy differs from the default, in the order of the file."""
    base = default_policy()
    if policy.tiers != base.tiers:
        yield Difference(line="partners.tiers", value=", ".join(policy.tiers), default=", ".join(base.tiers), effect="changes")
    for name, number in asdict(policy.numbers).items():
        usual = getattr(base.numbers, name)
        if number != usual:
            effect: Effect = "changes" if name == "named_drivers" else "tightens"
            yield Difference(line=f"numbers.{name}", value=f"{number:g}", default=f"{usual:g}", effect=effect)
    pairs: list[tuple[str, Audience, Audience | None]] = [
        *((f"actions.{name}", audience, base.actions[name]) for name, audience in policy.actions.items()),
        *((f"notes.{name}", audience, base.notes[name]) for name, audience in policy.notes.items()),
        *((f"families.{name}", audience, None) for name, audience in policy.families.items()),
        *((f"features.{name}", audience, None) for name, audience in policy.features.items()),
        *((f"fields.{name}.{key}", lines[key], base.fields[name][key]) for name, lines in policy.fields.items() for key in lines),
    ]
    for line, audience, default in pairs:
        if audience != default:
            usual = "what the catalogue says" if default is None else audience_words(default)
            yield Difference(line=line, value=audience_words(audience), default=usual, effect=_effect(audience, default))


def audience_words(audience: Audience) -> str:
    """Say an audience in words.

    Examples
    --------
    >>> audience_words("vendor"), audience_words(frozenset({"gold", "silver"}))
    ('the vendor', 'partners of the tiers gold, silver')
    """
    if isinstance(audience, frozenset):
        return f"partners of the tier{'s' if len(audience) > 1 else ''} {', '.join(sorted(audience))}"
    return "the vendor" if audience == "vendor" else "every partner"


def _effect(audience: Audience, default: Audience | None) -> Effect:
    if default is None or (isinstance(audience, frozenset) and isinstance(default, frozenset)):
        return "changes"
    return "loosens" if default == "vendor" or audience in ("shared", "always") else "tightens"
