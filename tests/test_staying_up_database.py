"""The service goes on answering while its PostgreSQL database is away, whichever of the two was there first, and misses nothing of it."""

import http.client
import json
import signal
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from features.workspace import Workspace, load_workspace
from serving.callers.credentials import opened_identity
from serving.permissions.caller import VENDOR
from serving.records.store import SERVICE, open_store, upgrade_store
from serving.records.tables import JOURNAL, NOTES
from serving.scores.batch import score_workspace
from tests.postgres import SERVING_ROLE, SUPERUSER, Postgres
from tests.served import ask, send, serving, wait_until
from tests.serving_book import make_workspace

ACCOUNTS = [f"acc-{number:04d}" for number in range(0, 240, 24)]
HTML = {"Accept": "text/html"}


@dataclass(frozen=True)
class Place:
    """A scored workspace whose store is in a database server that can be stopped."""

    workspace: Workspace
    server: Postgres
    key: str
    link: str

    @property
    def database(self):
        return f'database = "{self.server.address("store", user=SERVING_ROLE)}"'

    def journal(self):
        store = open_store(self.workspace.database)
        try:
            with store.tenant(SERVICE) as connection:
                return connection.execute(sa.select(JOURNAL)).mappings().all()
        finally:
            store.dispose()


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_postgres):
    import psycopg

    workspace = make_workspace(tmp_path_factory.mktemp("served"))
    score_workspace(workspace)
    server = make_postgres()
    with psycopg.connect(server.address("postgres", user=SUPERUSER), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {SERVING_ROLE} LOGIN")
        connection.execute("CREATE DATABASE store")
    upgrade_store(server.address("store"), serving_role=SERVING_ROLE)
    config = workspace.folder / "renewcast.toml"
    config.write_text(config.read_text() + f'[serving]\ndatabase = "{server.address("store", user=SERVING_ROLE)}"\n')
    workspace = load_workspace(workspace.folder, {})
    with opened_identity(workspace) as identity:
        key = identity.issue_key(VENDOR, label="crm", role="administrator")
        link = identity.sign_in_token(VENDOR)
    return Place(workspace, server, key, link)


class Client:
    """Asks a service, each time under a request id of its own, and remembers how each was answered."""

    def __init__(self, place, service, name):
        self.place, self.service, self.name = place, service, name
        self.statuses = {}

    def ask(self, path, *, key=None, **options):
        identifier = f"{self.name}-{len(self.statuses)}"
        headers = {"X-Request-ID": identifier} | options.pop("headers", {})
        status, got, body = ask(self.service.port, path, key=key or self.place.key, headers=headers, **options)
        self.statuses[identifier] = status
        return status, got, body

    def reads(self):
        """Read each of some accounts once."""
        return [self.ask(f"/v1/accounts/{account}") for account in ACCOUNTS]

    def note(self, text="Spoke with them"):
        return self.ask(f"/v1/accounts/{ACCOUNTS[0]}/notes", body={"text": text})

    def readiness(self):
        status, _, body = ask(self.service.port, "/readyz")
        answer = json.loads(body)
        return status, answer["status"], {check["name"]: check["detail"] for check in answer["checks"] if not check["good"]}

    def sign_in(self):
        """Open the sign-in link, and return the status and the cookies."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        try:
            connection.request("GET", f"/sign-in?{urlencode({'token': self.place.link})}", headers=HTML)
            answer = connection.getresponse()
            return answer.status, "; ".join(cookie.partition(";")[0] for cookie in answer.headers.get_all("Set-Cookie", ()))
        finally:
            connection.close()


def test_the_database_away_while_the_service_runs_and_when_it_starts(place, tmp_path):
    with serving(place.workspace, log=tmp_path / "first.log", more=place.database) as service:
        client = Client(place, service, "first")
        before = client.reads()
        assert client.note()[0] == 201
        status, cookies = client.sign_in()
        assert status == 303
        signed_in = {"Cookie": cookies, **HTML}
        # the same worker answers on the same connection, and has seen the session then
        page = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        assert send(page, "/", headers=signed_in)[0] == 200

        place.server.stop()
        after = client.reads()
        wait_until(lambda: all({"database", "journal", "keys"} <= set(client.readiness()[2]) for _ in range(8)))
        status, state, why = client.readiness()
        assert (status, state) == (200, "degraded")
        assert "database does not answer" in why["database"] and "wait" in why["journal"] and "last read" in why["keys"]
        after += client.reads()
        assert [(status, body) for status, _, body in after] == [(200, body) for _, _, body in before] * 2
        assert client.ask("/v1/accounts", key="rk_0_0")[0] == 401, "whoever is not known is not let in for that"
        writes = [client.note(), client.ask(f"/v1/accounts/{ACCOUNTS[0]}/notes", body={"text": "x"}, headers={"Idempotency-Key": "one"})]
        for status, headers, body in writes:
            assert (status, headers["content-type"], json.loads(body)["type"]) == (503, "application/problem+json", "/docs#not-ready")
            assert int(headers["retry-after"]) > 0
        assert client.sign_in()[0] == 503
        assert send(page, "/", headers=signed_in)[0] == 200, "who is signed in reads on"
        page.close()
        assert waiting(place) >= len(ACCOUNTS)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(120) == 0, "it leaves in good order, and its lines stay on the disk"

    kept = waiting(place)
    assert kept >= len(ACCOUNTS)
    with serving(place.workspace, log=tmp_path / "second.log", workers=1, more=place.database) as service:
        again = Client(place, service, "second")
        assert again.readiness()[:2] == (200, "degraded")
        assert [(status, body) for status, _, body in again.reads()] == [(200, body) for _, _, body in before]
        assert again.note()[0] == 503
        assert waiting(place) >= kept + len(ACCOUNTS)

        place.server.start()
        wait_until(lambda: again.readiness()[:2] == (200, "ready") and waiting(place) == 0)
        assert again.note("Spoke again")[0] == 201
        assert again.sign_in()[0] == 401, "another browser than the one that used the link first"
        wait_until(lambda: waiting(place) == 0 and any(line["request_id"] == last(again) for line in place.journal()))

    lines = place.journal()
    assert len({line["line_id"] for line in lines}) == len(lines)
    for one in (client, again):
        arrived = Counter((line["request_id"], line["outcome"]) for line in lines if line["request_id"] in one.statuses)
        assert set(arrived.values()) == {1}, "each once"
        answered = {identifier for identifier, status in one.statuses.items() if status in (200, 201, 401)}
        assert answered <= {identifier for identifier, _ in arrived}, "and all of them"
    store = open_store(place.workspace.database)
    with store.tenant(SERVICE) as connection:
        assert sorted(connection.scalars(sa.select(NOTES.c.text))) == ["Spoke again", "Spoke with them"]
    store.dispose()


def last(client):
    return max((name for name, status in client.statuses.items() if status == 201), key=lambda name: int(name.rpartition("-")[2]))


def waiting(place):
    """Return how many lines of the journal are on the disk."""
    folder = place.workspace.state / "journal"
    found = 0
    for path in folder.glob("*"):
        try:
            found += path.read_bytes().count(b"\n")
        except FileNotFoundError:
            continue
    return found
