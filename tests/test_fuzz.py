"""Requests made up from the OpenAPI document, good ones and bad ones, as vendor, partner and stranger: what is answered is described.

With RENEWCAST_FUZZ_EXAMPLES=500 so many are tried of each operation and caller, in place of a few.
"""

import json
import os
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from serving.app import ROUTERS

FEW = 8
EXAMPLES = int(os.environ.get("RENEWCAST_FUZZ_EXAMPLES", str(FEW)))


@pytest.fixture(scope="module")
def callers(vendor, partner):
    return {"vendor": vendor, "partner": partner, "stranger": {"Authorization": "Bearer rk_nobody_nothing"}}


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


def good_as_sent(case, address):
    """Tell whether a request that was made up to be bad is good once it is written down: in an address `[1]` is `1`, and `[]` is nothing.

    The tool knows that itself, but not if the credential, which the test puts right, was made up to be bad as well.
    """
    bad = {place for place, component in case.meta.components.items() if component.mode is GenerationMode.NEGATIVE}
    declared = case.operation.definition.raw.get("parameters", [])
    if not bad <= {ParameterLocation.QUERY, ParameterLocation.HEADER} or any(parameter["in"] == "header" for parameter in declared):
        return False
    schemas = {parameter["name"]: parameter["schema"] for parameter in declared if parameter["in"] == "query"}
    sent = parse_qsl(urlsplit(address).query, keep_blank_values=True)
    names = [name for name, _ in sent]
    return len(names) == len(set(names)) and all(name in schemas and fits(value, schemas[name]) for name, value in sent)


def fits(text, schema):
    """Tell whether a value keeps to its schema as it stands in an address: as text, or as the number that it is."""
    values = [text]
    with suppress(ValueError):
        values.append(json.loads(text))
    return any(jsonschema.Draft202012Validator(schema).is_valid(value) for value in values)


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
        response = case.call(headers=callers[caller])
        assert response.status_code < 500, response.text
        assert caller != "stranger" or operation_id in {"livez", "readyz"} or response.status_code >= 400, response.text
        excluded = [positive_data_acceptance] if known_only_to_the_service(case) else []
        excluded += [negative_data_rejection] if mode is GenerationMode.NEGATIVE and good_as_sent(case, response.request.url) else []
        case.validate_response(response, headers=callers[caller], excluded_checks=excluded)

    if mode is GenerationMode.POSITIVE or operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody"):
        answered()
