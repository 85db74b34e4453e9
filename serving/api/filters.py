"""How an address asks for some of the book: the filters and the order, the same for the pages of the API and for exports."""

from datetime import date, datetime, time, timedelta
from typing import Annotated

from fastapi import Depends, Query

from serving.answers import schema
from serving.answers.portfolio import BookQuery, Order, Sort, Span, closed_fields
from serving.answers.problems import ProblemError
from serving.api.desk import Desk
from serving.callers.identity import Principal
from serving.callers.journal import Action
from serving.health import Band
from serving.scores.sharing import View

__all__ = ["Filters", "require_open"]

_Text = Annotated[str | None, Query(min_length=1, max_length=200, pattern=schema.WITHOUT_CONTROLS)]
_Amount = Annotated[float | None, Query(allow_inf_nan=False)]
_Chance = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]


async def _filters(
    band: Annotated[Band | None, Query(description="Band of health.", examples=["red"])] = None,
    segment: Annotated[_Text, Query(description="Segment, as it is written.", examples=["Enterprise"])] = None,
    partner: Annotated[_Text, Query(description="A partner's id.", examples=["p1"])] = None,
    csm: Annotated[_Text, Query(description="Customer success manager, as it is written.", examples=["Ada Moreau"])] = None,
    search: Annotated[str, Query(max_length=200, description="Part of a name or of an account id, in any case.", examples=["opal"])] = "",
    min_arr: Annotated[_Amount, Query(description="ARR, at least; accounts without ARR are left out.", examples=[10_000])] = None,
    max_arr: Annotated[_Amount, Query(description="ARR, at most; accounts without ARR are left out.")] = None,
    min_churn_probability: Annotated[_Chance, Query(description="Probability of churn, at least.", examples=[0.2])] = None,
    max_churn_probability: Annotated[_Chance, Query(description="Probability of churn, at most.")] = None,
    renewal_from: Annotated[date | None, Query(description="Renews on this day (UTC) or later.", examples=["2025-07-01"])] = None,
    renewal_until: Annotated[date | None, Query(description="Renews on this day (UTC) or earlier.", examples=["2025-09-30"])] = None,
    sort: Annotated[
        Sort | None, Query(description="ARR at risk if not given; probability of churn where there is no ARR. Ties: by account id.")
    ] = None,
    order: Annotated[Order | None, Query(description="What needs you first if not given. Accounts without a value come last.")] = None,
) -> BookQuery:
    """Return the filters and the order that the address asks for."""
    return BookQuery(
        band=band,
        segment=segment,
        partner=partner,
        csm=csm,
        search=search,
        arr=Span(min_arr, max_arr),
        churn_probability=Span(min_churn_probability, max_churn_probability),
        renewal_from=None if renewal_from is None else _just_before(renewal_from),
        renewal_until=None if renewal_until is None else datetime.combine(renewal_until, time.max),
        sort=sort,
        order=order,
    )


Filters = Annotated[BookQuery, Depends(_filters)]


def _just_before(day: date) -> datetime:
    return datetime.min if day == date.min else datetime.combine(day, time.min) - timedelta(microseconds=1)


async def require_open(desk: Desk, query: BookQuery, view: View, principal: Principal, *, action: Action) -> None:
    """See that the caller asks only about what it may read.

    Raises
    ------
    ProblemError
        403 for a filter or an order by what the policy keeps from the caller.
    """
    if closed := closed_fields(query, view):
        await desk.journal.refused(f"asked about {', '.join(closed)}", principal=principal, action=action)
        raise ProblemError(403, f"You may not filter or order by {' and '.join(closed)}.")
