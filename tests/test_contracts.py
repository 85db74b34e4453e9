import pytest

from features.contracts import CONTRACT


@pytest.mark.parametrize("table", CONTRACT)
def test_rules_name_columns_of_the_table_that_fit_them(table):
    contract = CONTRACT[table]
    columns = contract.columns
    times = {name for name, column in columns.items() if column.type == "time"}
    assert set(contract.unique) <= set(columns)
    assert all(columns[name].required for name in contract.unique)
    named = {time for pair in contract.ordered for time in pair} | set(contract.term or ()) | {contract.occurred, contract.ended} - {None}
    assert named <= times
    assert {column.known_from for column in columns.values()} - {None} <= times


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_are_described_and_bounded_sensibly(table):
    for name, column in CONTRACT[table].columns.items():
        assert column.meaning, name
        assert column.type == "number" or (column.low, column.high) == (None, None), name
        assert column.low is None or column.high is None or column.low < column.high, name
        assert column.type == "time" or not column.future, name


def test_what_happens_is_never_expected_in_the_future():
    planned = {"subscriptions", "assignments"}
    assert {name for name, contract in CONTRACT.items() if contract.occurred and contract.columns[contract.occurred].future} == planned


def test_only_accounts_and_telemetry_are_needed():
    assert {name for name, contract in CONTRACT.items() if contract.required} == {"accounts", "telemetry"}
    assert CONTRACT["telemetry"].columns["user_id"].required is False


def test_rows_of_an_account_name_it():
    assert {name for name, contract in CONTRACT.items() if "account_id" not in contract.columns} == {"partners"}
