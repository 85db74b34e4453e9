"""What the accounts of each partner add up to, and what the accounts of the others are like.

Nothing here compares partners: their accounts differ. A partner is told what the accounts of all other partners together are like, if
there are enough of them and enough partners behind it that nobody can be worked out of the mean.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from serving.answers.account_answers import as_of, totals_answer
from serving.answers.portfolio import Rows, assigned_partners, total_up, visible_rows
from serving.answers.schema_portfolio import PartnerBook, PartnerDetail, PartnerList, Peers, SegmentBook
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["partner_answer", "partners_answer"]


def partners_answer(score_set: ScoreSet, view: View) -> PartnerList:
    """Return the books of all partners that the caller may see, the one with the most ARR at risk first."""
    books = [_book(score_set, partner, rows, view) for partner, rows in _books(score_set, view).items()]
    ranked = sorted(books, key=lambda book: (-(book.totals.arr_at_risk or 0.0), -book.totals.accounts, book.partner_id))
    return PartnerList(**view.share("PartnerList", {"partners": ranked, "as_of": as_of(score_set, view)}))


def partner_answer(score_set: ScoreSet, partner_id: str, view: View) -> PartnerDetail | None:
    """Return one partner's book by segment; None if there is none that the caller may see."""
    rows = _books(score_set, view).get(partner_id)
    if rows is None:
        return None
    values = {
        "segments": [_segment(score_set, segment, chosen, view) for segment, chosen in _by_segment(score_set, rows)],
        "peers": _peers(score_set, partner_id, view),
        "as_of": as_of(score_set, view),
    }
    return PartnerDetail(**view.share("PartnerDetail", vars(_book(score_set, partner_id, rows, view)) | values))


def _books(score_set: ScoreSet, view: View) -> dict[str, Rows]:
    """Return the rows of each partner; a partner without any account is there for itself."""
    assigned = assigned_partners(score_set, view)
    visible = visible_rows(score_set, view)
    books = {partner: np.flatnonzero(visible & (assigned == partner)) for partner in _names(assigned[visible])}
    if view.caller.partner_id is not None:
        books.setdefault(view.caller.partner_id, np.array([], dtype=np.intp))
    return books


def _names(partners: Iterable[str | None]) -> list[str]:
    return sorted({partner for partner in partners if partner is not None})


def _book(score_set: ScoreSet, partner_id: str, rows: Rows, view: View) -> PartnerBook:
    accounts = score_set.accounts
    growth = accounts["expansion_probability"][rows] if "expansion_probability" in accounts else None
    values = {
        "partner_id": partner_id,
        "name": partner.name if (partner := score_set.partners.get(partner_id)) else None,
        "totals": totals_answer(total_up(score_set, rows), view),
        "mean_churn_probability": _mean(accounts["churn_probability"][rows]),
        "mean_expansion_probability": None if growth is None else _mean(growth),
        "expansion_arr": None if growth is None else _sum(growth * accounts["arr"][rows]),
    }
    return PartnerBook(**view.share("PartnerBook", values))


def _by_segment(score_set: ScoreSet, rows: Rows) -> list[tuple[str | None, Rows]]:
    segments = score_set.accounts["segment"][rows]
    found: list[tuple[str | None, Rows]] = [(name, rows[segments == name]) for name in _names(segments)]
    without = rows[np.array([segment is None for segment in segments], dtype=bool)]
    return [*found, (None, without)] if len(without) else found


def _segment(score_set: ScoreSet, segment: str | None, rows: Rows, view: View) -> SegmentBook:
    values = {
        "segment": segment,
        "totals": totals_answer(total_up(score_set, rows), view),
        "mean_churn_probability": _mean(score_set.accounts["churn_probability"][rows]),
    }
    return SegmentBook(**view.share("SegmentBook", values))


def _peers(score_set: ScoreSet, partner_id: str, view: View) -> Peers | None:
    """Return what the accounts of all other partners are like, if that tells nothing about one account or one partner."""
    assigned = assigned_partners(score_set, view)
    others = np.flatnonzero(np.array([partner is not None and partner != partner_id for partner in assigned], dtype=bool))
    numbers = view.policy.numbers
    if len(others) < numbers.peers_needed or len(_names(assigned[others])) < numbers.fewest_merged:
        return None
    values = {
        "accounts": len(others),
        "mean_churn_probability": _mean(score_set.accounts["churn_probability"][others]),
        "red_share": float((score_set.accounts["band"][others] == "red").mean()),
    }
    return Peers(**view.share("Peers", values))


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _sum(values: npt.NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nansum(values))
