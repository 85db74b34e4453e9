import csv
import gc
import io
import json
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.answers.exports import _cell, export_pieces
from serving.answers.schema import AccountSummary
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from tests.calls import as_caller
from tests.serving_book import ACCOUNTS, TestClient


def read(form, content):
    if form == "parquet":
        return pq.read_table(io.BytesIO(content)).to_pylist()
    if form == "jsonl":
        return [json.loads(line) for line in content.decode().splitlines()]
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_an_export_tells_what_the_list_tells_in_the_same_order(client, vendor, form):
    params = {"sort": "name", "min_arr": 5_000}
    listed = client.get("/v1/accounts", params=params | {"limit": 500}, headers=vendor).json()["accounts"]
    answer = client.get("/v1/export/accounts", params=params | {"format": form}, headers=vendor)
    exported = read(form, answer.content)
    assert 0 < len(listed) < ACCOUNTS
    assert [row["account_id"] for row in exported] == [account["account_id"] for account in listed]
    for row, account in zip(exported, listed, strict=True):
        assert float(row["churn_probability"]) == account["churn_probability"]
        assert float(row["arr"]) == account["arr"]
        assert row["name"] == account["name"]
    assert answer.headers["content-disposition"] == f'attachment; filename="accounts-2025-07-01.{form}"'


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_partner_exports_its_own_accounts(client, partner, form):
    rows = read(form, client.get("/v1/export/accounts", params={"format": form}, headers=partner).content)
    assert rows and {row["partner_id"] for row in rows} == {"p1"}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_an_export_of_nothing_is_a_good_file(client, vendor, form):
    answer = client.get("/v1/export/accounts", params={"format": form, "search": "nobody is called that"}, headers=vendor)
    assert answer.status_code == 200
    assert read(form, answer.content) == []
    if form == "csv":
        assert answer.text.startswith("account_id,name,")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_not_shared_is_not_in_the_file(workspace, form):
    (workspace.folder / "policy.toml").write_text(
        '[fields.AccountSummary]\narr = "vendor"\narr_at_risk = "vendor"\nrenewal_at = "vendor"\n'
    )
    try:
        with TestClient(create_app(workspace)) as client:
            partner = as_caller(client.app, Caller("p1"))
            rows = read(form, client.get("/v1/export/accounts", params={"format": form}, headers=partner).content)
            refused = client.get("/v1/export/accounts", params={"sort": "arr"}, headers=partner)
    finally:
        (workspace.folder / "policy.toml").unlink()
    assert not {"arr", "arr_at_risk", "renewal_at"} & set(rows[0])
    assert "health" in rows[0]
    assert refused.status_code == 403


def test_an_export_takes_the_scope_and_the_policy_s_leave(client, workspace):
    without = as_caller(client.app, VENDOR, scopes=["accounts:read"])
    assert client.get("/v1/export/accounts", headers=without).status_code == 403
    (workspace.folder / "policy.toml").write_text('[actions]\nexport = "vendor"\n')
    try:
        with TestClient(create_app(workspace)) as other:
            assert other.get("/v1/export/accounts", headers=as_caller(other.app, Caller("p1"))).status_code == 403
            assert other.get("/v1/export/accounts", headers=as_caller(other.app, VENDOR)).status_code == 200
    finally:
        (workspace.folder / "policy.toml").unlink()


@pytest.mark.parametrize("text", ["=1+1", "+49 1", "-2", "@SUM(A1)", "\tx", "\rx"])
def test_text_is_never_a_formula(text):
    assert _cell(text) == f"'{text}"
    assert _cell("a" + text) == "a" + text
    assert _cell(-2.5) == -2.5


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_an_export_holds_the_accounts_of_one_piece_only(workspace, monkeypatch, form):
    made: list[weakref.ref[AccountSummary]] = []

    class Watched(AccountSummary):
        def model_post_init(self, _context: object) -> None:
            made.append(weakref.ref(self))

    monkeypatch.setattr("serving.answers.exports.PIECE_ROWS", 30)
    monkeypatch.setattr("serving.answers.exports.AccountSummary", Watched)
    score_set = load_score_set(workspace.scores)
    held = []
    for accounts, _ in export_pieces(score_set, np.arange(240), View(VENDOR, None, default_policy()), form):
        gc.collect()
        held.append((len(accounts), sum(summary() is not None for summary in made)))
    assert len(made) == 240
    assert held == [(30, 30)] * 8 + [(0, 30)] * (form == "parquet")
