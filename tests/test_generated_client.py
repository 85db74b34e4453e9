"""A client that is generated from the OpenAPI document: it is complete, typed, and every operation can be called with it."""

import asyncio
import importlib
import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from serving.api.api_document import operations
from tests.calls import CALLS
from tests.test_api_document import client as client  # the application, with all that the calls need
from tests.test_api_document import keys as keys

NAME = "renewcast_client"

USES = """
from renewcast_client import AuthenticatedClient
from renewcast_client.api.accounts import get_account, list_accounts
from renewcast_client.models import Account, Book, ListAccountsBandType0, Problem

client = AuthenticatedClient(base_url="http://127.0.0.1:3000", token="rk_")
book = list_accounts.sync(client=client, band=ListAccountsBandType0.RED, limit=10)
if isinstance(book, Book):
    for each in book.accounts:
        health: int = each.health
        name: str = each.name
answer = get_account.sync("acc-0001", client=client)
if isinstance(answer, Account):
    chance: float = answer.scores[0].probability
elif isinstance(answer, Problem):
    detail: str = answer.detail
"""


@pytest.fixture(scope="module")
def package(client, tmp_path_factory):
    """Generate the client and make it importable."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(json.dumps(client.app.openapi()))
    config = Config.from_sources(
        config_file=ConfigFile(post_hooks=[], package_name_override=NAME),
        meta_type=MetaType.NONE,
        document_source=document,
        file_encoding="utf-8",
        overwrite=True,
        output_path=folder / NAME,
    )
    errors = generate(config=config)
    assert [f"{error.header} {error.detail}" for error in errors] == []
    sys.path.insert(0, str(folder))
    yield importlib.import_module(NAME)
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]


def modules(package):
    """Return the module of each operation by its operation id."""
    found = Path(package.__file__).parent.glob("api/*/*.py")
    return {file.stem: importlib.import_module(f"{NAME}.api.{file.parent.name}.{file.stem}") for file in found if file.stem != "__init__"}


def argument(module, name, value):
    """Return a parameter as the function of an operation takes it: a choice is a member of an enumeration."""
    parameters = inspect.signature(module._get_kwargs).parameters
    name = name if name in parameters else f"{name}_"  # what is a word of Python's own has a dash below
    annotation = parameters[name].annotation
    kinds = [kind for kind in getattr(annotation, "__args__", (annotation,)) if isinstance(kind, type)]
    enumeration = next((kind for kind in kinds if hasattr(kind, "__members__")), None)
    return name, enumeration(value) if enumeration else value


def _body_models(module):
    annotation = inspect.signature(module._get_kwargs).parameters["body"].annotation
    return [kind for kind in getattr(annotation, "__args__", (annotation,)) if hasattr(kind, "from_dict")]


def body(module, value):
    """Return a JSON body as the model that the function takes; of several, the one whose fields it has."""
    return next(model for model in _body_models(module) if set(value) <= {each.name for each in model.__attrs_attrs__}).from_dict(value)


def test_every_operation_can_be_called(client, keys, package):
    called = modules(package)
    assert set(called) == {operation["operationId"] for _, _, operation in operations(client.app.openapi())} == set(CALLS)

    async def call_all():
        answers = {}
        transport = httpx.ASGITransport(client.app, raise_app_exceptions=False)
        for operation_id, call in CALLS.items():
            module = called[operation_id]
            bearer = keys(call.caller)["Authorization"].removeprefix("Bearer ")
            api = package.AuthenticatedClient(base_url="http://127.0.0.1", token=bearer, raise_on_unexpected_status=True)
            headers = {"Authorization": f"Bearer {bearer}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
                given = dict(argument(module, name, value) for name, value in call.parameters_after(answers).items())
                content = call.body_after(answers)
                if call.file:
                    name, bytes_ = call.file
                    (form,) = _body_models(module)
                    given["body"] = form(file=package.types.File(payload=io.BytesIO(bytes_), file_name=name))
                elif content is not None:
                    given["body"] = body(module, content)
                answer = await module.asyncio_detailed(client=api.set_async_httpx_client(http), **given)
            assert answer.status_code < 300, f"{operation_id}: {answer.content}"
            answers[operation_id] = json.loads(answer.content) if answer.headers["content-type"] == "application/json" else answer
            if answer.headers["content-type"] == "application/json":
                assert type(answer.parsed).__module__.startswith(f"{NAME}.models.")
                assert answer.parsed.to_dict().keys() == answers[operation_id].keys()

    asyncio.run(call_all())


def test_a_problem_is_parsed_too(client, package):
    async def call():
        transport = httpx.ASGITransport(client.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers={"Authorization": "Bearer rk_no"}) as http:
            api = package.AuthenticatedClient(base_url="http://127.0.0.1", token="rk_no")
            return await modules(package)["list_accounts"].asyncio(client=api.set_async_httpx_client(http))

    problem = asyncio.run(call())
    assert (problem.status, problem.type_) == (401, "/docs#not-signed-in")


def test_its_types_hold(package, tmp_path):
    """The whole client, and a use of it; the libraries that it stands on are left out, for they take most of the time."""
    folder = Path(package.__file__).parent.parent
    (folder / "uses.py").write_text(USES)
    leave_out = ["--follow-imports=skip", "--allow-subclassing-any", "--allow-untyped-decorators", "--no-warn-return-any"]
    call = [sys.executable, "-m", "mypy", "--strict", *leave_out, "--cache-dir", str(tmp_path), "--config-file", "", "uses.py", NAME]
    ran = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("Success: no issues found"), ran.stdout + ran.stderr
