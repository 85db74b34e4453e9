"""The reference page of all features, written from the catalogue."""

from itertools import groupby

from features.catalogue import Catalogue
from features.contracts import CONTRACT
from features.families import build_catalogue
from features.feature import Feature

__all__ = ["full_catalogue", "render_reference"]

_INTRODUCTION = """\
# Features

{count} features. What a feature may use at a cutoff is what was known by then. Windows are open on the left and closed on the right.

- **Who sees it**: *shared* with the account's partner; *vendor* for the vendor alone; *partner* for what a partner supplied.
- **Churn, expansion**: ↑ a higher value can only raise the odds, ↓ only lower them (a constraint that the model keeps).
- **Can act**: somebody at the vendor or the partner can do something about it.
"""


def full_catalogue() -> Catalogue:
    """Return the catalogue of a workspace that has every table and column, with one kind of event as an example."""
    columns = {name: tuple(contract.columns) for name, contract in CONTRACT.items()}
    return build_catalogue(
        columns, currency="USD", events=("report",), carrying=("report",), ratios={"deals_lost": (("lost",), ("lost", "won"))}
    )


def render_reference(catalogue: Catalogue) -> str:
    """Return the page as Markdown, one table a family.

    Examples
    --------
    >>> "days_since_last_event" in render_reference(full_catalogue())
    True
    """
    parts = [_INTRODUCTION.format(count=len(catalogue))]
    ordered = sorted(catalogue, key=lambda feature: feature.family)
    for family, features in groupby(ordered, key=lambda feature: feature.family):
        parts.append(f"\n## {family.capitalize()}\n\n{_HEADER}\n" + "\n".join(_row(feature) for feature in features) + "\n")
    return "".join(parts)


_HEADER = "| feature | unit | what it says | who sees it | churn | expansion | can act |\n|---|---|---|---|---|---|---|"


def _row(feature: Feature) -> str:
    arrows = {1: "↑", -1: "↓"}
    churn, expansion = (arrows.get(feature.direction.get(target, 0), "") for target in ("churn", "expansion"))
    acts = "yes" if feature.actionable else ""
    return f"| `{feature.name}` | {feature.unit} | {feature.meaning} | {feature.sensitivity} | {churn} | {expansion} | {acts} |"
