import multiprocessing
import os
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from features.errors import ConfigError, WorkspaceError
from features.workspace import ChangeTarget, Workspace, load_workspace

NEEDED = '[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n'


def workspace(folder: Path, text: str, environ=None) -> Workspace:
    (folder / "renewcast.toml").write_text(text, encoding="utf-8")
    return load_workspace(folder, environ or {})


def test_defaults(tmp_path):
    config = workspace(tmp_path, NEEDED).config
    assert config.name == tmp_path.name
    assert (config.currency, config.quarantine_limit, config.data_until) == ("USD", 0.05, None)
    assert config.targets.kind == "usage"
    assert config.targets.expansion == ChangeTarget(measure="active_users")
    assert config.cutoffs.every == "month"
    assert config.tables["accounts"].sources[0].location == tmp_path / "a.csv"
    assert config.serving.port == 3000


def test_targets_are_on_subscriptions_where_there_are_some(tmp_path):
    targets = workspace(tmp_path, NEEDED + '[tables.subscriptions]\nsource = "s.csv"\n').config.targets
    assert targets.kind == "subscription"
    assert targets.contraction.measure == "arr"


def test_every_setting_is_read(tmp_path):
    text = """
    [workspace]
    name = "Acme"
    currency = "eur"
    quarantine_limit = 0.1
    data_until = 2024-01-31
    [currencies]
    usd = 0.9
    [tables.accounts]
    source = "a.csv"
    [tables.accounts.attributes]
    channel = "category"
    size = { type = "number", sql = "a + b" }
    [tables.telemetry]
    source = "events"
    format = "jsonl"
    where = "kind <> 'x'"
    quarantine_limit = 0.2
    before_created_at = "quarantine"
    [tables.telemetry.columns]
    event = "kind"
    occurred_at = { column = "ts", time_zone = "Europe/Berlin", time_format = "%d.%m.%Y" }
    quantity = { sql = "a * 2", low = 0 }
    product = { constant = "core" }
    [[tables.engagement.sources]]
    source = "nps.csv"
    [[tables.engagement.sources]]
    database = "sqlite"
    source = "crm.db"
    table = "mails"
    [targets]
    kind = "usage"
    horizon_days = 180
    expansion = { measure = "events", threshold = 0.25, minimum_change = 1 }
    [cutoffs]
    every = { days = 14 }
    first = "2023-01-01T02:00:00+02:00"
    [training]
    test_from = 2023-06-01
    folds = 3
    trials = 20
    plausible_auc = { churn = 0.9 }
    health_score = "our_health_score"
    [training.parameters.churn]
    learning_rate = 0.03
    [features]
    events = ["a", "b"]
    [mlflow]
    tracking_uri = "http://mlflow:5000"
    [serving]
    port = 8080
    address = "https://renewcast.example.com/"
    trusted_proxies = ["10.0.0.0/8", "::1"]
    """
    config = workspace(tmp_path, text).config
    telemetry = config.tables["telemetry"]
    assert (config.currency, config.currencies, config.data_until) == ("EUR", {"USD": 0.9}, datetime(2024, 1, 31))
    assert config.tables["accounts"].attributes == {"channel": "category", "size": "number"}
    assert config.tables["accounts"].sources[0].columns["attribute_size"].sql == "a + b"
    assert (telemetry.quarantine_limit, telemetry.before_created_at) == (0.2, "quarantine")
    assert telemetry.sources[0].columns["occurred_at"].time_zone == "Europe/Berlin"
    assert telemetry.sources[0].columns["quantity"].low == 0
    assert [source.database for source in config.tables["engagement"].sources] == [None, "sqlite"]
    assert config.cutoffs.every == 14
    assert config.cutoffs.first == datetime(2023, 1, 1)
    assert (config.training.folds, config.training.trials, config.training.health_score) == (3, 20, "our_health_score")
    assert config.training.plausible_auc == {"churn": 0.9, "contraction": 0.97, "expansion": 0.98}
    assert config.training.parameters["churn"] == {"learning_rate": 0.03}
    assert config.features.events == ("a", "b")
    assert (config.mlflow.tracking_uri, config.serving.port) == ("http://mlflow:5000", 8080)
    assert (config.serving.address, config.serving.trusted_proxies) == ("https://renewcast.example.com", ("10.0.0.0/8", "::1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NEEDED + "[cutofs]\n", "did you mean 'cutoffs'?"),
        (NEEDED + "[serving]\ntrusted_proxies = ['10.0.0.1/8']\n", "holds no network"),
        (NEEDED + "[serving]\ntrusted_proxies = ['*']\n", "such as 10.0.0.7"),
        (NEEDED + "[serving]\naddress = 'renewcast.example.com'\n", "is not the address of a host"),
        (NEEDED + "[serving]\naddress = 'https://example.com/renewcast'\n", "is not the address of a host"),
        (NEEDED + "[targets]\nhorizon_day = 9\n", "targets.horizon_day is not a known key"),
        (NEEDED + "[targets]\nhorizon_day = 9\n", "did you mean 'horizon_days'?"),
        (NEEDED + "[targets]\nhorizon_days = 'ninety'\n", "allowed: 1 to 730"),
        (NEEDED + "[targets]\nhorizon_days = true\n", "given:   true"),
        (NEEDED + "[targets]\nkind = 'use'\n", "allowed: subscription, usage"),
        (NEEDED + "[targets]\nkind = 'subscription'\n", "there is no subscriptions table"),
        (NEEDED + "[targets.expansion]\nmeasure = 'arr'\n", "needs the table subscriptions"),
        (NEEDED + "[cutoffs]\nevery = 'day'\n", "allowed: month, renewal, week"),
        (NEEDED + "[cutoffs]\nfirst = 2024-01-01\nlast = 2023-01-01\n", "cutoffs.last lies before first"),
        (NEEDED + "[cutoffs]\nfirst = 'soon'\n", "is not a date"),
        (NEEDED + "[features]\nevents = 'login'\n", 'Write events = ["...", "..."]'),
        (NEEDED + "[training.parameters.chrn]\n", "did you mean 'churn'?"),
        (NEEDED + "[training]\nfolds = 0\n", "allowed: 1 to 12"),
        (NEEDED + "[training]\ntrials = -1\n", "allowed: at least 0"),
        (NEEDED + "[training]\ntrails = 5\n", "did you mean 'trials'?"),
        (NEEDED + "[training]\nhealth_score = 1\n", "training.health_score is not a text"),
        (NEEDED + "[training.plausible_auc]\nchurn = 0.5\n", "is the AUC of chance"),
        (NEEDED + "[training.plausible_auc]\nchurn = 1.1\n", "allowed: 0.5 to 1"),
        (NEEDED + "[training.plausible_auc]\nchrn = 0.9\n", "did you mean 'churn'?"),
        (NEEDED + "[currencies]\nEUR = 0\n", "currencies.EUR is a rate of zero"),
        (NEEDED + "[tables.tickts]\nsource = 'x'\n", "did you mean 'tickets'?"),
        (NEEDED + "[tables.tickets]\nsource = 'x'\n[tables.tickets.columns]\nseverty = 'a'\n", "did you mean 'severity'?"),
        (NEEDED + "[tables.tickets]\nsource = 'x'\n[tables.tickets.columns]\nseverity = 3\n", "does not say where the column comes from"),
        (
            NEEDED + "[tables.tickets]\nsource = 'x'\n[tables.tickets.columns]\nseverity = { sql = 'a', constant = 'b' }\n",
            "must come from exactly one place",
        ),
        (NEEDED + "[tables.tickets.columns]\nseverity = 'a'\n", "tables.tickets.source is missing"),
        (NEEDED + "[tables.tickets]\ndatabase = 'sqlite'\nsource = 'x'\n", "exactly one of them says what to read"),
        (NEEDED + "[tables.tickets]\ndatabase = 'postgresql'\ntable = 'x'\n", "tables.tickets.url_env is missing"),
        (NEEDED + "[tables.tickets]\nsource = 'x'\nlookups = { y = 'y.csv' }\n", "of no use without a query"),
        (
            NEEDED + "[tables.tickets]\nsource = 'x'\n[tables.tickets.columns]\nopened_at = { column = 'a', time_zone = 'Mars' }\n",
            "not a known time zone",
        ),
        ("[tables.telemetry]\nsource = 't.csv'\n", "tables.accounts is missing"),
        (NEEDED + "[workspace]\ndata = '${NOWHERE}/x'\n", "uses the variable NOWHERE, which is not set"),
        ("[tables", "is not TOML"),
    ],
)
def test_a_mistake_is_answered_with_the_key_and_what_is_allowed(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        workspace(tmp_path, text)
    assert message in str(caught.value)
    assert "renewcast.toml" in str(caught.value)


def test_a_folder_without_config_is_no_workspace(tmp_path):
    with pytest.raises(WorkspaceError, match="renewcast init"):
        load_workspace(tmp_path, {})


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "renewcast.toml").write_bytes(b"\xef\xbb\xbf" + NEEDED.encode())
    assert load_workspace(tmp_path, {}).config.tables["accounts"]


def test_data_is_relative_to_the_workspace_by_default_and_to_the_working_directory_from_the_environment(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "ws", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = '[workspace]\ndata = "${DATA:-../shared}/set"\n' + NEEDED
    assert workspace(folder, text).config.tables["accounts"].sources[0].location == tmp_path / "shared" / "set" / "a.csv"
    there = workspace(folder, text, {"DATA": "mine"}).config.tables["accounts"].sources[0].location
    assert there == elsewhere / "mine" / "set" / "a.csv"


def test_an_address_with_a_password_is_never_shown(tmp_path):
    text = NEEDED + '[tables.tickets]\ndatabase = "postgresql"\nurl_env = "CRM"\ntable = "t"\n'
    source = workspace(tmp_path, text, {"CRM": "postgresql://u:secret@h/d"}).config.tables["tickets"].sources[0]
    assert source.url == "postgresql://u:secret@h/d"
    assert "secret" not in repr(source)


def _hold(folder: str, held, done) -> None:
    with load_workspace(Path(folder), {}).lock("renewcast train"):
        held.set()
        done.wait(20)


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path):
    mine = workspace(tmp_path, NEEDED)
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), held, done))
    other.start()
    assert held.wait(20)
    try:
        with pytest.raises(WorkspaceError, match=f"renewcast train, process {other.pid} on "), mine.lock("renewcast check"):
            pass
    finally:
        done.set()
        other.join(20)
    with mine.lock("renewcast check"):
        assert mine.state.is_dir()
    with mine.lock("renewcast check"):
        pass


@contextmanager
def as_anybody():
    """Give up, while the block runs, root's right to write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_workspace_that_cannot_be_written_to_says_so(tmp_path):
    mine = workspace(tmp_path, NEEDED)
    tmp_path.chmod(0o500)
    try:
        with as_anybody(), pytest.raises(WorkspaceError, match="cannot be written to"), mine.lock("renewcast check"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_state_folder_that_is_a_file_says_so(tmp_path):
    mine = workspace(tmp_path, NEEDED)
    mine.state.write_text("in the way")
    with pytest.raises(WorkspaceError, match="cannot be written to"), mine.lock("renewcast check"):
        pass
