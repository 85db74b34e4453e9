import numpy as np
import pytest

from serving.answers.partner_books import partner_answer, partners_answer
from serving.permissions.assignments import Assignments, Term
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores.sharing import View
from tests.calls import as_caller
from tests.serving_book import ACCOUNTS, CUTOFF, EARLIER


def view(caller):
    return View(caller, None, default_policy(), CUTOFF)


def test_the_books_of_the_partners_are_what_filtering_by_partner_adds_up_to(client):
    vendor = as_caller(client.app, VENDOR)
    books = client.get("/v1/partners", headers=vendor).json()["partners"]
    assert {book["partner_id"] for book in books} == {"p1", "p2", "p3", "p4"}
    assert [book["totals"]["arr_at_risk"] for book in books] == sorted((book["totals"]["arr_at_risk"] for book in books), reverse=True)
    for book in books:
        listed = client.get("/v1/accounts", params={"partner": book["partner_id"], "limit": 500}, headers=vendor).json()
        assert book["totals"] == listed["totals"]
        chances = [account["churn_probability"] for account in listed["accounts"]]
        assert book["mean_churn_probability"] == pytest.approx(np.mean(chances))
        assert book["expansion_arr"] == pytest.approx(sum(a["expansion_probability"] * a["arr"] for a in listed["accounts"]))


def test_segments_cover_a_partner_s_book_once(client):
    partner = as_caller(client.app, Caller("p1"))
    book = client.get("/v1/partners/p1", headers=partner).json()
    assert sum(segment["totals"]["accounts"] for segment in book["segments"]) == book["totals"]["accounts"]
    assert sum(segment["totals"]["arr"] for segment in book["segments"]) == pytest.approx(book["totals"]["arr"])


def test_a_partner_sees_itself_and_no_other(client):
    partner = as_caller(client.app, Caller("p1"))
    assert [book["partner_id"] for book in client.get("/v1/partners", headers=partner).json()["partners"]] == ["p1"]
    foreign, unknown = (client.get(f"/v1/partners/{name}", headers=partner) for name in ("p2", "nobody"))
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


def test_a_partner_without_accounts_has_an_empty_book(score_set):
    answer = partner_answer(score_set, "new", view(Caller("new")))
    assert answer.totals.accounts == 0 and answer.mean_churn_probability is None and answer.segments == []


def with_partners(score_set, partners):
    ids = score_set.accounts["account_id"]
    terms = [Term(account_id=ids[row], partner_id=partner, valid_from=EARLIER) for row, partner in enumerate(partners) if partner]
    changed = {"assignments": Assignments.of(terms, ids)}
    return type(score_set)(**{name: getattr(score_set, name) for name in score_set.__dataclass_fields__} | changed)


@pytest.mark.parametrize(
    ("others", "told"),
    [(["p2"] * 4 + ["p3"] * 3 + ["p4"] * 3, True), (["p2"] * 4 + ["p3"] * 3 + ["p4"] * 2, False), (["p2"] * 40 + ["p3"] * 40, False)],
)
def test_peers_are_told_from_enough_accounts_and_enough_partners_on(score_set, others, told):
    book = with_partners(score_set, (["p1"] * 20 + others + [None] * ACCOUNTS)[:ACCOUNTS])
    peers = partner_answer(book, "p1", view(Caller("p1"))).peers
    assert (peers is not None) == told
    if told:
        assert peers.mean_churn_probability == pytest.approx(book.accounts["churn_probability"][20:30].mean())
        assert peers.accounts is None  # how many accounts the others have is the vendor's to know
        assert partner_answer(book, "p1", view(VENDOR)).peers.accounts == 10


def test_a_stricter_policy_is_obeyed(score_set):
    policy = parse_policy("[numbers]\npeers_needed = 200\n")
    assert partner_answer(score_set, "p1", View(Caller("p1"), None, policy, CUTOFF)).peers is None


def test_without_arr_partners_are_ordered_by_accounts(score_set):
    nothing = np.full(ACCOUNTS, np.nan)
    accounts = dict(score_set.accounts) | {"arr": nothing, "arr_at_risk": nothing}
    book = type(score_set)(**{name: getattr(score_set, name) for name in score_set.__dataclass_fields__} | {"accounts": accounts})
    books = partners_answer(book, view(VENDOR)).partners
    assert [one.totals.accounts for one in books] == sorted((one.totals.accounts for one in books), reverse=True)
    assert books[0].expansion_arr is None and books[0].totals.arr is None
