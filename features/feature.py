"""What a feature is: one declared object that the computation, the wording, the sharing and the model's constraints all read.

A feature is either *measured*, an aggregate of one table's rows in one `Window`, or *derived*, a formula on other features of the
same row (`source=None`). Its expression is a function from an Ibis table to an Ibis value and never compares times itself: the
snapshot engine hands it only rows that were known at the cutoff, with the fields that became known later set to missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["LOOKBACKS", "Direction", "Expression", "Family", "Feature", "Kind", "Sensitivity", "Target", "Window"]

Family = Literal["usage", "engagement", "support", "commercial", "outcomes", "partner", "peers"]
Sensitivity = Literal["shared", "vendor", "partner"]
Target = Literal["churn", "contraction", "expansion"]
Kind = Literal["number", "category"]
Expression = Callable[["ir.Table"], "ir.Value"]
Direction = Mapping[Target, Literal[-1, 1]]


LOOKBACKS = (7, 28, 91, 182, 364)
"""Days that features look back, all multiples of 7."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The rows that a measured feature aggregates.

    Parameters
    ----------
    table
        A contract table, such as `telemetry`, or a view of one that the engine offers, such as `partner_book`.
    days
        Length of `(cutoff - lag_days - days, cutoff - lag_days]`, a multiple of 7; None for all that was known at the cutoff.
    lag_days
        How long before the cutoff the window ends: `Window(table="telemetry", days=28, lag_days=28)` is the window before last.
    by
        Columns by which an account's telemetry rows are summed up first: `("user_id",)` leaves one row a user with `events`,
        `quantity`, `rows` and `users`. `day` and `week` may be used; both are numbers.
    each
        A column whose levels have features of their own, such as `event`; a feature names its level.
    """

    table: str
    days: int | None = None
    lag_days: int = 0
    by: tuple[str, ...] = ()
    each: str | None = None

    def __post_init__(self) -> None:
        if self.days is not None and (self.days <= 0 or self.days % 7):
            raise ValueError(f"a lookback is a positive multiple of 7 days, so that a weekday never looks like a trend; given: {self.days}")
        if self.lag_days < 0:
            raise ValueError(f"a window never ends after its cutoff; given: lag_days={self.lag_days}")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the feature matrix.

    Parameters
    ----------
    name
        With unit and window, such as `active_users_28d`.
    unit
        What one of it is: `users`, `days`, `share`, `ratio`, a currency such as `USD`, `level` for a category.
    meaning
        What it says, in a CSM's words, as the rest of a sentence that starts with the name.
    sentence
        A template for the explanation. `{moved}` becomes "fell from 41 to 23", `{value}` the value with its unit.
    expression
        From the rows of `source` (or, for a derived feature, from the other features of the row) to the value.
    source
        The window that is aggregated; None for a derived feature.
    level
        For a window with `each`: the level that this feature is about. Features that share an expression object are computed together.
    needs
        Columns of the source's table, beyond the required ones, without which the feature is dropped.
    inputs
        For a derived feature: the features that its formula reads; it is dropped where one of them is.
    empty
        The value for an account without any row in the window, or with none that the expression picks; None for missing.
    kind
        `number` (float64) or `category` (string).
    direction
        For a target, +1 if a higher value can only raise its odds, -1 if only lower them: a monotone constraint.
    sensitivity
        `shared` with the account's partner, `vendor` for the vendor's eyes, `partner` for what a partner supplied in confidence.
    actionable
        Whether somebody at the vendor or the partner can do something about it.
    """

    name: str
    family: Family
    unit: str
    meaning: str
    sentence: str
    expression: Expression = field(compare=False, repr=False)
    source: Window | None = None
    level: str | None = None
    needs: frozenset[str] = frozenset()
    inputs: tuple[str, ...] = ()
    empty: float | None = None
    kind: Kind = "number"
    direction: Direction = field(default_factory=dict)
    sensitivity: Sensitivity = "shared"
    actionable: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("family", Family), ("kind", Kind), ("sensitivity", Sensitivity)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"the {name} of {self.name} is one of {', '.join(get_args(allowed))}; given: {getattr(self, name)!r}")
        if not set(self.direction) <= set(get_args(Target)) or not set(self.direction.values()) <= {-1, 1}:
            raise ValueError(f'the direction of {self.name} is like {{"churn": -1}}, with -1 or 1; given: {dict(self.direction)}')
        if self.empty is not None and (self.source is None or self.kind == "category"):
            raise ValueError(f"{self.name} cannot have an empty value: only numbers that are measured in a window can")
        try:
            self.sentence.format(moved="", value="")
        except (LookupError, ValueError) as error:
            raise ValueError(f"the sentence of {self.name} holds {{moved}}, {{value}} or neither; given: {self.sentence!r}") from error
