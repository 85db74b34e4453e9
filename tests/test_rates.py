import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.workspace import load_workspace
from serving.answers.problems import ProblemError
from serving.api.rates import Counters, Rates
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from tests.serving_book import TestClient, make_workspace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def granted(rates, credential):
    try:
        rates.count_request(credential)
    except ProblemError as error:
        assert error.status == 429
        return False
    return True


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60))
def test_no_window_grants_more_than_the_limit(asked):
    """The slow twin keeps each credential's windows as lists."""
    clock = Clock()
    rates = Rates(requests=5, failures=5, clock=clock)
    windows = {}
    for credential, wait in asked:
        clock.now += wait
        start, count = windows.get(credential, (clock.now, 0))
        if clock.now - start >= 60:
            start, count = clock.now, 0
        windows[credential] = (start, count + 1)
        assert granted(rates, credential) == (count < 5)


def test_a_refusal_says_when_to_come_again():
    clock = Clock()
    rates = Rates(requests=2, failures=5, clock=clock)
    assert rates.count_request("key:a")["ratelimit"] == '"requests";r=1;t=60'
    clock.now += 20.5
    rates.count_request("key:a")
    with pytest.raises(ProblemError, match="40 seconds") as refused:
        rates.count_request("key:a")
    assert refused.value.headers["Retry-After"] == "40"
    clock.now += 40
    assert granted(rates, "key:a")


def test_workers_share_a_limit():
    rates = [Rates(requests=5, failures=5, workers=2, clock=Clock()) for _ in range(2)]
    assert sum(granted(rates[number % 2], "key:a") for number in range(20)) == 6


def test_memory_is_bounded_and_the_one_that_asked_longest_ago_is_forgotten():
    counters = Counters(most=100, clock=Clock())
    for number in range(10_000):
        counters.incr(f"key:{number}", 60)
        counters.incr("always there", 60)
    assert counters.get("always there") == 10_000
    assert sum(bool(counters.get(f"key:{number}")) for number in range(10_000)) == 99
    assert counters.reset() == 100


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    config = (workspace.folder / "renewcast.toml").read_text()
    (workspace.folder / "renewcast.toml").write_text(
        config.replace("1_000_000", "8").replace("[serving.limits]", "[serving]\nworkers = 2\n[serving.limits]")
    )
    score_workspace(workspace)
    with TestClient(create_app(load_workspace(workspace.folder)), raise_server_exceptions=False) as client:
        yield client


def key_of(client, caller):
    return {"Authorization": f"Bearer {client.app.state.desk.identity.issue_key(caller, label='test')}"}


def test_each_credential_has_a_limit_of_its_own(client):
    busy, calm = key_of(client, VENDOR), key_of(client, Caller("p1"))
    answers = [client.get("/v1/models", headers=busy) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=4;w=60'
    assert answers[0].headers["ratelimit"].startswith('"requests";r=3;t=')
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["type"] == "/docs#too-many-requests"
    assert client.get("/v1/models", headers=calm).status_code == 200
    assert client.get("/livez").status_code == 200


def test_wrong_credentials_from_one_address_have_to_wait(client):
    client.app.state.desk.rates._limiter.storage.reset()
    good = key_of(client, VENDOR)
    tried = [client.get("/v1/models", headers={"Authorization": f"Bearer rk_nobody_{number}"}).status_code for number in range(6)]
    assert tried == [401] * 4 + [429] * 2
    assert client.get("/v1/models", headers=good).status_code == 429  # so a good key cannot be told from wrong ones by trying
    assert client.get("/sign-in", params={"token": "x"}).status_code == 429
    client.app.state.desk.rates._limiter.storage.reset()
    assert client.get("/v1/models", headers=good).status_code == 200
    assert [client.get("/sign-in", params={"token": "x"}).status_code for _ in range(5)] == [401] * 4 + [429]
