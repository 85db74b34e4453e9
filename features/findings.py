"""What an audit for leaks found, in words: the findings, and the probes that were run.

A leak is anything by which a feature at a cutoff knows what became known only after it. A model that learnt from one looks good in
every test and fails in use, so a leak bars a model from promotion. What is only odd is to be looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Audit", "Finding", "Severity", "listed"]

Severity = Literal["leak", "look at"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicion, with its reasons.

    Parameters
    ----------
    probe
        Name of the probe that raised it.
    severity
        `leak` bars a model from promotion, `look at` does not.
    subject
        The feature, or table.column, that it is about; several are separated by commas.
    message
        What was found, with the numbers.
    todo
        What to do next.
    evidence
        The numbers again, for machines.
    examples
        First rows, each in a line.
    """

    probe: str
    severity: Severity
    subject: str
    message: str
    todo: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the finding as a reader sees it."""
        first = "".join(f"\n    {example}" for example in self.examples)
        return f"{self.severity}: {self.subject}: {self.message}{first}\n  next: {self.todo}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as values that JSON can hold."""
        return asdict(self) | {"evidence": dict(self.evidence), "examples": list(self.examples)}


@dataclass(frozen=True)
class Audit:
    """What was found, and what was looked for.

    Parameters
    ----------
    findings
        Leaks first.
    probes
        By name, what each probe that was run did, in a sentence. One that is not named was not run.

    Examples
    --------
    >>> found = Audit((Finding(probe="constant", severity="look at", subject="seats", message="always 5", todo="-"),), {"constant": "..."})
    >>> found.leaks, Audit.from_json(found.to_json()) == found
    ((), True)
    """

    findings: tuple[Finding, ...] = ()
    probes: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that bar a model from promotion."""
        return tuple(finding for finding in self.findings if finding.severity == "leak")

    def joined(self, other: "Audit") -> "Audit":
        """Return both audits as one."""
        findings = sorted((*self.findings, *other.findings), key=lambda finding: finding.severity)
        return Audit(tuple(findings), {**self.probes, **other.probes})

    def to_json(self) -> dict[str, Any]:
        """Return the audit as values that JSON can hold."""
        return {"findings": [finding.to_json() for finding in self.findings], "probes": dict(self.probes)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Audit":
        """Return the audit that `to_json` gave."""
        findings = tuple(Finding(**(entry | {"examples": tuple(entry["examples"])})) for entry in stored["findings"])
        return cls(findings, dict(stored["probes"]))


def listed(names: Sequence[str], *, at_most: int = 5) -> str:
    """Name the first few things of a list and count the others.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], at_most=1)
    ('a, b, c', 'a and 2 more')
    """
    more = len(names) - at_most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:at_most])} and {more} more"
