"""The command about the API: what it is, for generators of clients."""

import json

import typer

__all__ = ["app", "openapi"]

app = typer.Typer()


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the API, which a service also gives at /openapi.json; it needs no workspace."""
    from serving.api.api_document import api_document
    from serving.app import ROUTERS

    document = api_document([route for router in ROUTERS for route in router.routes])
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
