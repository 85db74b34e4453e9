import io
import json
import logging
import subprocess
import sys

import pytest

from features.errors import ServiceError, explain
from serving.app import create_app
from serving.callers.journal import REQUEST_ID
from serving.operations.logs import JsonLines
from serving.permissions.caller import VENDOR
from serving.scores.batch import score_workspace
from tests.serving_book import TestClient, make_workspace


def line_of(error=None, message="it failed"):
    try:
        if error is not None:
            raise error
        exc_info = None
    except Exception:
        exc_info = sys.exc_info()
    record = logging.LogRecord("renewcast.serving", logging.ERROR, __file__, 1, message, (), exc_info)
    return json.loads(JsonLines().format(record))


def test_an_error_that_nobody_foresaw_is_told_without_its_words():
    line = line_of(KeyError("acc-0017"))
    assert (line["error"], line["message"]) == ("KeyError", "it failed")
    assert line["frames"][-1].startswith("tests/test_logs.py:")
    assert "acc-0017" not in json.dumps(line)


def test_an_error_that_was_composed_for_the_operator_is_told_in_full():
    line = line_of(ServiceError(explain("the score set is damaged", todo="Run `renewcast score` again.")))
    assert "renewcast score" in line["detail"]


def test_a_line_carries_the_id_of_its_request():
    assert "request_id" not in line_of()
    token = REQUEST_ID.set("my-id")
    assert line_of()["request_id"] == "my-id"
    REQUEST_ID.reset(token)


def test_a_line_is_one_line_whatever_is_said():
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "one\ntwo \u2028 %s", ("three\r\n",), None)
    assert len(JsonLines().format(record).splitlines()) <= 2  # U+2028 is text to JSON
    assert json.loads(JsonLines().format(record))["message"] == "one\ntwo \u2028 three\r\n"


CONFIGURE = """
import logging, sys
import bentoml
from bentoml._internal.log import configure_server_logging
from serving.operations.logs import configure_logs
configure_server_logging()
configure_logs()
logging.getLogger("bentoml.serve").warning("canary")
logging.getLogger("uvicorn.access").error("/accounts/canary")
logging.getLogger("some.library").info("canary")
logging.getLogger("some.library").warning("heard")
logging.getLogger("renewcast.serving").info("heard")
print(logging.getLogger("uvicorn.access").hasHandlers())
"""


def test_all_loggers_write_lines_and_libraries_only_what_matters():
    ran = subprocess.run([sys.executable, "-c", CONFIGURE], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [("some.library", "heard"), ("renewcast.serving", "heard")]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("logs"))
    score_workspace(workspace)
    return create_app(workspace)


@pytest.fixture
def logged(caplog):
    """Return what gives the lines that were written since."""
    caplog.set_level(logging.INFO, logger="renewcast")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger("renewcast").addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger("renewcast").removeHandler(handler)


@pytest.mark.parametrize("given", ["my-id.1_2", "x" * 64])
def test_a_sane_id_of_a_request_is_kept_in_answer_and_log(app, logged, given):
    answer = TestClient(app).get("/livez", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert [line["request_id"] for line in logged() if line["logger"] == "renewcast.access"] == [given]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "{}", "ä", "<script>"])
def test_another_id_is_replaced(app, given):
    answers = [TestClient(app).get("/nothing", headers={"X-Request-ID": given.encode()}) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert given not in ids and ids[0] != ids[1]
    assert [answer.json()["request_id"] for answer in answers] == ids


def test_what_fails_inside_is_logged_with_the_id_and_without_data(app, logged, monkeypatch):
    def broken(*_args, **_options):
        raise KeyError("acc-0017 canary")

    monkeypatch.setattr(app.state.desk.live, "current", broken)
    key = app.state.desk.identity.issue_key(VENDOR, label="x")
    answer = TestClient(app).get("/v1/accounts/acc-0017", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 500
    assert "content-security-policy" in answer.headers
    lines = logged()
    failed = next(line for line in lines if line["message"] == "a request failed")
    assert failed["error"] == "KeyError"
    access = next(line for line in lines if line["logger"] == "renewcast.access")
    assert failed["request_id"] == answer.headers["x-request-id"]
    assert (access["status"], access["route"], access["caller"]) == (500, "/v1/accounts/{account_id}", "vendor")
    assert not any(canary in json.dumps(lines) for canary in ("canary", "acc-0017", key))
