"""Requests made up from the OpenAPI document, good ones and bad ones, as vendor, partner and stranger: what is answered is described.

With RENEWCAST_FUZZ_EXAMPLES=500 so many are tried of each operation and caller, in place of a few.
"""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.app import ROUTERS, create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from tests.serving_book import make_workspace

FEW = 8
EXAMPLES = int(os.environ.get("RENEWCAST_FUZZ_EXAMPLES", str(FEW)))


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return create_app(workspace)


@pytest.fixture(scope="module")
def callers(app):
    issue = app.state.desk.identity.issue_key
    keys = {"vendor": issue(VENDOR, label="fuzz"), "partner": issue(Caller("p1"), label="fuzz"), "stranger": "rk_nobody_nothing"}
    return {caller: {"Authorization": f"Bearer {key}"} for caller, key in keys.items()}


@pytest.fixture(scope="module")
def api(app):
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    return schema


OPERATIONS = sorted(route.operation_id for router in ROUTERS for route in router.routes if getattr(route, "include_in_schema", False))


RULES_OF_THEIR_OWN = {
    "get_worth",
    "withdraw_contribution",
    "ask_what_if",
    "contribute_rows",
    "contribute_file",
    "give_feedback",
    "record_play",
    "write_note",
}
"""What these may be sent is not all said in a schema: which features there are, that somebody who disagrees says why, that past is past."""


def known_only_to_the_service(case):
    """Tell whether a good request may be refused: its cursor was not given, its word is no time, its features are not there."""
    if case.operation.definition.raw["operationId"] in RULES_OF_THEIR_OWN:
        return True
    words = (case.query or {}).keys() & {"cursor", "from", "since", "to"}
    return bool(words) or (isinstance(case.body, dict) and bool(case.body.keys() & {"features", "rows"}))


def name_what_is_there(case, account, partner):
    """Put an id that there is into the address and the body; made-up ones are hardly ever somebody's."""
    for name, known in (("account_id", account), ("partner_id", partner)):
        if known and name in (case.path_parameters or {}):
            case.path_parameters[name] = known
    if account and isinstance(case.body, dict) and "accounts" in case.body:
        case.body["accounts"].append(account)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("caller", ["vendor", "partner", "stranger"])
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_answer_is_described(api, callers, operation_id, caller, mode):
    operation = api.find_operation_by_id(operation_id)

    @given(
        operation.as_strategy(generation_mode=mode), st.sampled_from(["", "acc-0000", "acc-0001", "acc-0004"]), st.sampled_from(["", "p1"])
    )
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES == FEW, database=None)
    def answered(case, account, partner):
        if mode is GenerationMode.POSITIVE:
            name_what_is_there(case, account, partner)
        excluded = [positive_data_acceptance] if known_only_to_the_service(case) else []
        case.call_and_validate(headers=callers[caller], excluded_checks=excluded)

    if mode is GenerationMode.POSITIVE or operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody"):
        answered()
