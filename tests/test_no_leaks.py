"""Nobody is told what is not theirs: random tenants, policies and histories of assignment over every route of the application.

Confidential fields hold canaries: names, ids and numbers that are found nowhere else. Every route is asked as a partner, for accounts of
its own, of others and of nobody; no byte of any answer, header, log line or metric may hold a canary that is not the partner's.

With RENEWCAST_LEAK_WORLDS=50 each test looks at so many worlds, in place of a few.
"""

import itertools
import json
import logging
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.routing import Mount

from serving.answers.account_answers import explain_account
from serving.app import create_app
from serving.permissions.assignments import Assignments, Term
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.permissions.supplies import SUPPLIED, Supplies, Supply
from serving.scores.account_json import keep_pieces
from serving.scores.batch import score_workspace
from serving.scores.fragments import read_fragments
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from tests.feature_files import write_features
from tests.serving_book import CATALOGUE, CUTOFF, TestClient, make_workspace, stamps, write

PARTNERS = {f"quagga-{letter}": f"Quagga Holdings {letter.upper()}" for letter in "abc"}
TIERS = {"quagga-a": "gold", "quagga-b": "silver", "quagga-c": None}
ACCOUNTS = 24
SECRET_NUMBERS = {"price_per_seat": 48151.623, "discount": 0.0815162, "list_price_gap": 0.0623421}
SECRET_LEVEL = "okapi"
NOW = datetime.now(UTC).replace(tzinfo=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("leaks"))
    plant(workspace)
    score_workspace(workspace)
    app = create_app(workspace)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield World(workspace, app, client)


def plant(workspace):
    """Put canaries where ids, names and the vendor's own numbers are, and fewer accounts than the small book has."""
    tables, snapshots = workspace.tables, workspace.snapshots
    ids = [f"acc-{number:04d}" for number in range(ACCOUNTS)]

    def renamed(path):
        frame = pq.read_table(path).to_pandas()
        frame = frame[frame["account_id"].isin(ids)]
        return frame.assign(account_id=frame["account_id"].str.replace("acc-", "zebra-"))

    for path in (*tables.glob("*.parquet"), snapshots / "labels.parquet"):
        if "account_id" in pq.read_schema(path).names:
            write(path, renamed(path))
    accounts = pq.read_table(tables / "accounts.parquet").to_pandas()
    numbers = [f"{number:04d}" for number in range(ACCOUNTS)]
    names = {"name": [f"Zebu {number} Holdings" for number in numbers], "csm": [f"Gnu {number} Caretaker" for number in numbers]}
    write(tables / "accounts.parquet", accounts.assign(**names))
    write(tables / "partners.parquet", {"partner_id": list(PARTNERS), "name": list(PARTNERS.values()), "tier": list(TIERS.values())})
    start = stamps([CUTOFF - timedelta(days=300)] * ACCOUNTS)
    assigned = {
        "account_id": accounts["account_id"],
        "partner_id": [list(PARTNERS)[row % 3] for row in range(ACCOUNTS)],
        "valid_from": start,
    }
    write(tables / "assignments.parquet", assigned | {"valid_to": stamps([None] * ACCOUNTS), "known_at": start})
    write_features(snapshots, renamed(snapshots / "features.parquet").assign(partner_tier=SECRET_LEVEL, **SECRET_NUMBERS))


class Fixed:
    """Gives every request the same, as a live score set or a live policy."""

    def __init__(self, value):
        self.value, self.fault = value, None

    def current(self):
        return self.value


class World:
    """The application, who may call it, and a way to give it other tenants and another policy."""

    def __init__(self, workspace, app, client):
        self.workspace, self.app, self.client, self.scored = workspace, app, client, load_score_set(workspace.scores)
        self.ids = self.scored.accounts["account_id"].tolist()
        self.keys = {partner: self.key(Caller(partner)) for partner in PARTNERS}
        self.sessions = {partner: self.session(Caller(partner)) for partner in PARTNERS}
        self.vendor = self.key(VENDOR, role="administrator")
        self.contributions = [self.inscribe(partner) for partner in PARTNERS]
        for row in range(ACCOUNTS):
            self.say(row, self.vendor, "vendor")

    def key(self, caller, **options):
        key = self.app.state.desk.identity.issue_key(caller, label=f"Serval of {caller.name}", **options)
        return {"Authorization": f"Bearer {key}"}

    def inscribe(self, partner):
        """Have a partner say something about every account, and contribute to it, while all are assigned to it."""
        terms = [Term(account_id=account, partner_id=partner, valid_from=CUTOFF) for account in self.ids]
        self.become(self.book(terms, ()), default_policy())
        for row in range(ACCOUNTS):
            self.say(row, self.keys[partner], partner)
        given = [row for account in self.ids for row in contributed(account, f"Caracal of {partner}")["rows"]]
        answer = self.client.post("/v1/contributions", headers=self.keys[partner], json={"rows": given})
        assert answer.status_code == 201, answer.text
        return answer.json()["contribution_id"]

    def say(self, row, key, who):
        for kind in REMARKS:
            address, words = f"/v1/accounts/{self.ids[row]}/{kind}", f"Caracal of {who}, {kind}"
            assert self.client.post(address, headers=key, json=remark(self, kind, words)).status_code == 201

    def session(self, caller):
        client = TestClient(self.app, headers={"accept": "text/html"}, raise_server_exceptions=False)
        client.get("/sign-in", params={"token": self.app.state.desk.identity.sign_in_token(caller)})
        client.headers["x-csrf-token"] = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)[1]
        return client

    def book(self, terms, supplies):
        """Return the score set under another history of assignments and of supplied data, made five days ago; the tables get it too."""
        columns = {name: [getattr(term, name) for term in terms] for name in ("account_id", "partner_id")}
        times = {name: stamps([getattr(term, name) for term in terms]) for name in ("valid_from", "valid_to")}
        write(self.workspace.tables / "assignments.parquet", columns | times | {"known_at": times["valid_from"]})
        tenants = {"assignments": Assignments.of(terms, self.ids), "supplies": Supplies(supplies, self.scored.features.values())}
        manifest = replace(self.scored.manifest, scored_at=NOW - timedelta(days=5))
        book = replace(self.scored, manifest=manifest, fragments=None, memory={}, **tenants)
        folder = self.workspace.folder / f"kept-{next(NEWS)}"
        folder.mkdir()
        keep_pieces(book, default_policy(), folder)
        return replace(book, fragments=read_fragments(folder), memory={})

    def become(self, score_set, policy):
        self.app.state.desk = replace(self.app.state.desk, live=Fixed(score_set), policies=Fixed(policy))


# tenants, histories and policies


def drawn_book(world, rng):
    """Return the score set with a history of assignments and of supplied data of its own."""
    terms = [
        Term(account_id=world.ids[row], partner_id=str(rng.choice(list(PARTNERS))), valid_from=NOW + start, valid_to=end and NOW + end)
        for row in range(ACCOUNTS)
        for start, end in drawn_terms(rng)
    ]
    supplies = [Supply(row, SUPPLIED, str(rng.choice(list(PARTNERS)))) for row in range(ACCOUNTS) if rng.random() < 0.5]
    return world.book(terms, supplies)


def drawn_terms(rng):
    """Yield up to three terms that begin or end days before or after now: past, present and coming ones."""
    for _ in range(rng.integers(0, 4)):
        start = timedelta(days=int(rng.integers(-30, 10)), hours=12)  # none begins or ends while the tests run
        yield start, (start + timedelta(days=int(rng.integers(1, 30)))) if rng.random() < 0.5 else None


def drawn_policy(rng):
    """Return a policy; often the default, under which the accounts' JSON that is kept beside the scores is used."""
    if rng.random() < 0.4:
        return default_policy()

    def audience():
        return rng.choice(['"shared"', '"vendor"', '["gold"]', '["silver"]', '["gold", "silver"]'])

    lines = ["[numbers]", f"named_drivers = {rng.integers(1, 9)}", f"peers_needed = {rng.choice([10, 12])}"]
    for section, names in (
        ("actions", ["what_if", "export", "contribute", "feedback", "see_retention"]),
        ("notes", ["vendor_plays", "vendor_notes"]),
        ("families", ["usage", "support", "engagement"]),
        ("features", ["seats", "trainings_182d", "open_tickets", "days_to_renewal"]),
        ("everywhere", ["arr", "arr_at_risk", "csm", "peers", "value"]),
    ):
        lines += [f"[{section}]", *(f"{name} = {audience()}" for name in names if rng.random() < 0.4)]
    return parse_policy("\n".join(lines))


# what is asked


MISSING = "zebra-9999"
NOBODY = "quagga-z"

QUERIES = {
    ("GET", "/v1/accounts"): [
        {},
        {"band": "red"},
        {"search": "zebu"},
        {"sort": "name", "limit": 2},
        {"partner": "quagga-b"},
        {"sort": "arr"},
    ],
    ("GET", "/v1/accounts/{account_id}"): [{}],
    ("GET", "/v1/accounts/{account_id}/changes"): [{}, {"from": "2025-04-01"}, {"from": "nonsense"}],
    ("GET", "/v1/accounts/{account_id}/history"): [{}],
    **{("GET", f"/v1/accounts/{{account_id}}/{kind}"): [{}] for kind in ("plays", "feedback", "notes")},
    ("GET", "/v1/contributions"): [{}],
    ("GET", "/v1/contributions/worth"): [{}, {"partner": "quagga-b"}],
    ("GET", "/v1/contributions/{contribution_id}"): [{}],
    ("GET", "/v1/changes"): [{}, {"limit": 1}, {"since": "nonsense"}],
    ("GET", "/v1/partners"): [{}],
    ("GET", "/v1/partners/{partner_id}"): [{}],
    ("GET", "/v1/retention"): [{}, {"by": "partner"}, {"months": 0}],
    ("GET", "/v1/features"): [{}],
    ("GET", "/v1/models"): [{}],
    ("GET", "/v1/track-record"): [{}],
    ("GET", "/v1/models/{target}/card"): [{}],
    ("GET", "/v1/export/accounts"): [{}, {"format": "jsonl"}, {"format": "parquet"}, {"partner": "quagga-b"}],
    ("GET", "/"): [{}, {"search": "zebu"}, {"partner": "quagga-b"}, {"page": "0"}],
    ("GET", "/accounts/{account_id}"): [{}],
    ("GET", "/accounts/{account_id}/what-if"): [{}, {"open_tickets": "9"}, {"price_per_sea": "1"}],
    ("GET", "/export"): [{}, {"format": "jsonl"}],
    ("GET", "/partners"): [{}],
    ("GET", "/partners/{partner_id}"): [{}],
    ("GET", "/partners/retention"): [{}],
    ("GET", "/retention"): [{}, {"by": "partner"}],
    ("GET", "/models"): [{}],
    ("GET", "/models/{target}/card"): [{}],
    ("GET", "/track-record"): [{}],
    ("GET", "/docs"): [{}],
    ("GET", "/livez"): [{}],
    ("GET", "/readyz"): [{}],
    ("GET", "/metrics"): [{}],
    ("GET", "/openapi.json"): [{}],
    ("GET", "/sign-in"): [{}, {"token": "nonsense"}],
    ("GET", "/sign-in/account"): [{}, {"to": "/"}],
    ("GET", "/sign-in/back"): [{}, {"code": "nonsense", "state": "nonsense"}],
}
"""For each route that is read, the queries that it is asked with."""

REMARKS = {
    "plays": {"play": "Training", "performed_at": "2025-06-30T09:00:00Z", "category": "Adoption", "note": "{words}"},
    "feedback": {"target": "churn", "agrees": False, "reason": "known_otherwise", "words": "{words}", "score_set": "{set}"},
    "notes": {"occurred_at": "2025-06-30T09:00:00Z", "text": "{words}"},
}
"""What is said about an account, by the last part of the address."""


FORMS = {
    "plays": {"play": "Training", "day": "2025-06-30", "category": "Adoption", "note": "What I say."},
    "feedback": {"target": "churn", "agrees": "no", "reason": "known_otherwise", "words": "What I say."},
    "notes": {"text": "What I say.", "day": "2025-06-30"},
}
"""The same as forms of the pages."""


def remark(world, kind, words):
    filled = {"{words}": words, "{set}": world.scored.manifest.version}
    return {name: filled.get(value, value) for name, value in REMARKS[kind].items()}


NEWS = itertools.count()
"""Contributing the same twice is answered with the first contribution, of an account that was the partner's then."""


def contributed(account, words):
    told = {"channel": "health_note", "occurred_at": "2025-06-30T09:00:00Z", "note": words}
    return {"rows": [told | {"account_id": account}, {"account_id": account, "occurred_at": "2025-06-29T09:00:00Z", "channel": "training"}]}


BODIES = {
    ("POST", "/v1/predict"): lambda world, ids: [
        {"accounts": ids},
        {"accounts": ids[:1]},
        {"rows": [{"id": "x", "features": dict.fromkeys(CATALOGUE.names)}]},
        {"rows": [{"id": "x", "features": {"price_per_sea": 1.0}}]},
        {"accounts": "all"},
    ],
    ("POST", "/v1/accounts/{account_id}/what-if"): lambda world, ids: [
        {"features": {"open_tickets": 9.0}},
        {"features": {"price_per_sea": 1.0}},
        {"features": {"price_per_seat": 1.0}},
        {"features": {"active_users_28d": 0.0, "trainings_182d": 4.0}},
    ],
    **{
        ("POST", f"/v1/accounts/{{account_id}}/{kind}"): lambda world, ids, kind=kind: [remark(world, kind, "What I say."), {}]
        for kind in REMARKS
    },
    ("POST", "/v1/contributions"): lambda world, ids: [contributed(account, f"Word {next(NEWS)}.") for account in ids[:3]],
    ("POST", "/v1/contributions/file"): lambda world, ids: [{}],
    ("POST", "/v1/contributions/{contribution_id}/withdraw"): lambda world, ids: [{}],
    **{("POST", f"/accounts/{{account_id}}/{kind}"): lambda world, ids, kind=kind: [FORMS[kind], {}] for kind in REMARKS},
    ("POST", "/sign-out"): lambda world, ids: [{}],
    ("POST", "/appearance"): lambda world, ids: [{}],
}
"""For each route that is written to, the bodies that it is sent, given some account ids."""


def routes(app):
    """Return the method and template of everything that is served, static files apart."""
    found = set()
    for route in app.routes:
        if not isinstance(route, Mount):
            found |= {(method, route.path) for method in (route.methods if isinstance(route, APIRoute) else {"GET"})}
    return found


def test_every_route_is_asked(world):
    assert routes(world.app) == set(QUERIES) | set(BODIES), (
        "give a new route a line above, so that it is asked for what is not the caller's"
    )


class Asked:
    """One request, and what in it the caller itself named."""

    def __init__(self, method, path, **options):
        self.method, self.path, self.options = method, path, options
        self.named = f"{path} {json.dumps(options)}"

    def __repr__(self):
        return f"{self.method} {self.named}"


def requests_of(world, mine, others):
    """Yield requests to every route, for accounts of the partner's own, of others and of nobody."""
    asked_for = [*mine[:2], *others[:2], MISSING]
    fillings = {
        "account_id": asked_for,
        "partner_id": [*PARTNERS, NOBODY],
        "contribution_id": [*world.contributions, MISSING],
        "target": ["churn", "expansion", "nonsense"],
    }
    for (method, template), queries in QUERIES.items():
        yield from (Asked(method, path, params=query) for path in paths(template, fillings) for query in queries)
    for (method, template), bodies in BODIES.items():
        kind = "json" if template.startswith("/v1") else "data"
        yield from (Asked(method, path, **{kind: body}) for path in paths(template, fillings) for body in bodies(world, asked_for))


def paths(template, fillings):
    name = re.search(r"\{(\w+)\}", template)
    return [template.replace(name[0], quote(value)) for value in fillings[name[1]]] if name else [template]


def ask(world, me, asked):
    """Send a request as a partner: with its key to the API, with its session to the pages."""
    if asked.path.startswith("/v1") or asked.path in {"/metrics", "/openapi.json"}:
        return world.client.request(asked.method, asked.path, headers=world.keys[me], **asked.options)
    answer = world.sessions[me].request(asked.method, asked.path, follow_redirects=False, **asked.options)
    if asked.path == "/sign-out":
        world.sessions[me] = world.session(Caller(me))
    return answer


# what must not be in the answers


class Secrets:
    """What one partner must never be told, in one book and under one policy."""

    def __init__(self, score_set, policy, me):
        self.score_set = score_set
        self.view = View(Caller(me), TIERS[me], policy, NOW)
        accounts = score_set.accounts
        self.mine = score_set.assignments.rows_of(me, NOW).tolist()
        foreign = sorted(set(range(len(score_set))) - set(self.mine))
        self.others = [accounts["account_id"][row] for row in foreign]
        self.words = [accounts[column][row] for column in ("account_id", "name", "csm") for row in foreign]
        self.words += [word for partner, name in PARTNERS.items() if partner != me for word in (partner, name)]
        self.words += [f"{animal} of {partner}" for animal in ("Caracal", "Serval") for partner in PARTNERS if partner != me]
        self.words += [f"Serval of partner:{partner}" for partner in PARTNERS if partner != me] + ["Serval of vendor"]
        said = {"plays": "vendor_plays", "feedback": "vendor_notes", "notes": "vendor_notes"}
        self.words += [f"Caracal of vendor, {kind}" for kind, note in said.items() if not self.view.shows_note(note, author=VENDOR)]
        if policy.fields["AccountSummary"]["csm"] == "vendor":
            self.words += accounts["csm"].tolist()
        hidden = [one for one in score_set.features.values() if not self.view.sees(one)]
        self.words += [word for one in hidden for word in (one.name, one.meaning) if word not in _ALSO_FIELDS]
        self.words += [form for one in hidden if one.name in SECRET_NUMBERS for form in forms(SECRET_NUMBERS[one.name])]
        self.words += [SECRET_LEVEL] if not self.view.sees(score_set.features["partner_tier"]) else []
        self.found = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in self.words))
        self.numbers = {number for row in self.mine for number in self.hidden_parts(row, {})}

    def hidden_parts(self, row, supplied):
        """Return the sizes of the account's parts that the partner may not see."""
        explained = (explain_account(self.score_set, row, target) for target in self.score_set.packages)
        members = [member for explanation in explained for driver in explanation.drivers for member in driver.members]
        hidden = [one.part for one in members if not self.view.sees(one.feature, supplied_by=supplied.get(one.feature.name, ()))]
        return {rounded(part) for part in hidden if abs(part) > 1e-6}

    def of_account(self, asked):
        """Return what another partner supplied to the account that is asked for: names of features, and their parts."""
        row = next((row for row in self.mine if self.score_set.accounts["account_id"][row] in asked.path), None)
        supplied = {} if row is None else self.score_set.supplies.of(row)
        foreign = {name for name, partners in supplied.items() if partners != {self.view.caller.partner_id}}
        return foreign, self.hidden_parts(row, supplied) if foreign else set()

    def in_answer(self, answer, asked):
        """Return the secrets that an answer tells, but for those that the request itself named."""
        text = readable(answer)
        if asked.path in {"/openapi.json", "/docs"}:  # the same whatever the book and the policy; examples may be called anything
            found = set(re.findall(r"zebra-0\d{3}|Zebu \d+|Gnu \d+|Quagga Holdings \w", text))
            return found - {PARTNERS[self.view.caller.partner_id]}
        names, parts = self.of_account(asked)
        told = {word for word in (*self.found.findall(text), *(name for name in names if name in text)) if word not in asked.named}
        return told | {number for number in floats(text) if rounded(number) in self.numbers | parts}


_ALSO_FIELDS = {"seats", "discount", "partner tier"}
"""Names of features that are names of fields, or words of the documentation, as well."""


def forms(number):
    """Return how a number may be written, as far as it is still recognised."""
    written = {repr(number), f"{number:,.0f}", f"{number:.0f}", f"{number:,.2f}", f"{number:.4g}", f"{number * 100:.4g}"}
    return [form for form in written if len(re.findall(r"[1-9]", form)) >= 4]


def rounded(number):
    return float(f"{number:.9g}")


def floats(text):
    return [float(found) for found in re.findall(r"-?\d+\.\d{4,}(?:[eE]-?\d+)?", text)]


def readable(answer):
    """Return an answer with its headers as text."""
    body = answer.content
    if body[:4] == b"PAR1":
        body = json.dumps(pq.read_table(pa.BufferReader(body)).to_pylist(), default=str).encode()
    return f"{dict(answer.headers)}\n{body.decode()}"


seeds = st.integers(0, 2**32 - 1)
crawling = settings(
    max_examples=int(os.environ.get("RENEWCAST_LEAK_WORLDS", "4")),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@crawling
@given(seeds, st.sampled_from(sorted(PARTNERS)))
def test_no_partner_is_told_what_is_not_its_own(world, caplog, seed, me):
    rng = np.random.default_rng(seed)
    book, policy = drawn_book(world, rng), drawn_policy(rng)
    world.become(book, policy)
    secrets = Secrets(book, policy, me)
    mine = [world.ids[row] for row in secrets.mine]
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        for asked in requests_of(world, mine, secrets.others):
            answer = ask(world, me, asked)
            assert answer.status_code < 500, (asked, answer.text)
            assert answer.status_code != 401 or asked.path == "/sign-in", asked
            assert secrets.in_answer(answer, asked) == set(), asked
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name.startswith("renewcast"))
    counted = world.client.get("/metrics", headers=world.vendor)
    assert counted.status_code == 200 and "_total" in counted.text
    assert re.findall(rf"zebra-\d|Zebu \d|Gnu \d|quagga-|Quagga|Caracal|Serval|{SECRET_LEVEL}", logged + counted.text) == []
    in_full = {repr(number) for number in SECRET_NUMBERS.values()}  # shorter forms are durations, too, once in a while
    assert in_full & set(re.findall(r"[\w.]+", logged + counted.text)) == set()


@crawling
@given(seeds, st.sampled_from(sorted(PARTNERS)))
def test_an_account_of_somebody_else_is_one_that_does_not_exist(world, seed, me):
    rng = np.random.default_rng(seed)
    book = drawn_book(world, rng)
    world.become(book, default_policy())
    mine = set(book.assignments.rows_of(me, NOW).tolist())
    foreign = [world.ids[row] for row in range(ACCOUNTS) if row not in mine]
    for (method, template), queries in QUERIES.items():
        if "{account_id}" in template and foreign:
            for query in queries:
                asked = [Asked(method, template.replace("{account_id}", account), params=query) for account in (foreign[0], MISSING)]
                theirs, nobodys = (without_id(ask(world, me, one), one) for one in asked)
                assert theirs == nobodys
    for (method, template), bodies in BODIES.items():
        for one, other in zip(bodies(world, foreign[:1]), bodies(world, [MISSING]), strict=True):
            kind = "json" if template.startswith("/v1") else "data"
            asked = [
                Asked(method, template.replace("{account_id}", account), **{kind: body})
                for account, body in zip((*foreign[:1], MISSING), (one, other), strict=False)
            ]
            if foreign and "{contribution_id}" not in template and template != "/sign-out":
                assert without_id(ask(world, me, asked[0]), asked[0]) == without_id(ask(world, me, asked[1]), asked[1])


@crawling
@given(seeds, st.sampled_from(sorted(PARTNERS)))
def test_an_account_of_somebody_else_takes_the_same_way_through_the_code(world, seed, me):
    """What is done for the one is what is done for the other, call by call, so that the time that it takes tells nothing either."""
    book = drawn_book(world, np.random.default_rng(seed))
    world.become(book, default_policy())
    foreign = [world.ids[row] for row in set(range(ACCOUNTS)) - set(book.assignments.rows_of(me, NOW).tolist())]
    for template in (template for _, template in QUERIES if template.startswith("/v1/accounts/{account_id}")):
        pairs = ([ways(world, me, template.replace("{account_id}", account)) for account in (foreign[0], MISSING)] for _ in range(5))
        assert any(theirs == nobodys and len(theirs) > 10 for theirs, nobodys in pairs)  # once in a while the journal begins a new file


def ways(world, me, path):
    """Return the functions of this project that a request calls, in order, but for the look at who manages the account.

    What stands around every request is left out too: it may not be over when the answer is there.
    """
    called = []
    around = {
        "serving.operations.access",
        "serving.operations.borders",
        "serving.operations.draining",
        "serving.operations.logs",
        "serving.operations.metrics",
        "serving.api.rates",
    }

    def note(frame, event, _argument):
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
        counts = module.startswith(("serving.", "features.")) and module not in around | {
            "serving.permissions.assignments",
            "features.clock",
        }
        if event == "call" and counts and name not in {"View.manages", "Caller.is_vendor"}:
            called.append(f"{module}.{name}")

    world.client.portal.call(sys.setprofile, note)
    try:
        assert ask(world, me, Asked("GET", path)).status_code == 404
    finally:
        world.client.portal.call(sys.setprofile, None)
    return called


def without_id(answer, asked):
    """Return all of an answer but the account that was asked for, the id of the request and the time."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date", "ratelimit"}}
    headers["set-cookie"] = re.sub(r"expires=[^;]+", "", headers.get("set-cookie", ""))  # another time
    told = re.sub(r"zebra-\d{4}", "ACCOUNT", answer.text)
    told = re.sub(r'"(contribution_id|received_at|content_hash|request_id)":"[^"]*"', r'"\1":"..."', told)
    headers.pop("content-length", None)
    return answer.status_code, headers, told.replace(headers.get("x-request-id", "?"), "ID")
