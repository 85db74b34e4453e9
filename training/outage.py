"""What is said where the model registry does not do as it was asked: what happened, and what to do about it."""

import errno
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from features.errors import RegistryError, explain

__all__ = ["answering"]

_LIBRARIES = {"mlflow", "sqlalchemy", "alembic"}
"""Whose errors are no mistakes of ours; those of requests are OSErrors."""

_FULL = re.compile(r"No space left on device|database or disk is full|Disk quota exceeded", re.IGNORECASE)
_REVISION = re.compile(r"found version (\w+)")
_REFUSED = re.compile(r"error code 40[13]\b")
_LOCAL = "sqlite:///"


@contextmanager
def answering(address: str, what: str, *, knows_revision: Callable[[str], bool]) -> Iterator[None]:
    """Turn the errors of the registry, of the way to it and of the disk into one that says what to do.

    Parameters
    ----------
    address
        The registry's.
    what
        What is wrong, in general.
    knows_revision
        Tells whether the installed MLflow knows a revision of a store's tables.

    Raises
    ------
    RegistryError
        In place of such an error; mistakes in the code are raised as they are.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow and its dependencies warn each other; nobody here can act on it
            yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _LIBRARIES:
            raise
        raise RegistryError(_explained(error, address, what, knows_revision)) from error


def _explained(error: Exception, address: str, what: str, knows_revision: Callable[[str], bool]) -> str:
    told = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    revision = _REVISION.search(str(error))
    if _is_full(error):
        place = "the disk" if address.startswith(_LOCAL) else "the disk of this machine, or that of the MLflow server,"
        todo = "Make room on it, then try again. No half model was registered, and the champions are what they were."
        return explain(f"{place} is full: {told}", given=address, todo=todo)
    if revision and not knows_revision(revision[1]):
        return explain(
            "the model registry's store was made by a newer MLflow than the one that is installed",
            given=f"{address}, revision {revision[1]}",
            todo="Install the MLflow that made it, or another store: name a server in [mlflow], or move mlflow.db away.",
        )
    if revision:
        todo = f"Make a copy of the store, then run `mlflow db upgrade {address}`."
        return explain("the model registry's store was made by an older MLflow", given=address, todo=todo)
    return explain(f"{what}: {told}", given=address, todo=_todo(address, told))


def _is_full(error: Exception) -> bool:
    return any(
        (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)) or _FULL.search(str(cause)) for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _todo(address: str, told: str) -> str:
    if address.startswith(_LOCAL):
        file = address.removeprefix(_LOCAL)
        return f"See that {file} and the files beside it can be read and written; if they are damaged, move them away and train again."
    if _REFUSED.search(told):
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ask the server's administrator for the permission to edit."
    return "See that the MLflow server runs and that its address is right, or remove [mlflow] from the config for a store in the workspace."
