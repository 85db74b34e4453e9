import errno

import pytest
from sqlalchemy.exc import OperationalError

from features.errors import RegistryError
from training.outage import answering


def told(error, address="sqlite:///store.db", *, known=True):
    with pytest.raises(RegistryError) as raised, answering(address, "it does not answer", knows_revision=lambda revision: known):
        raise error
    assert raised.value.__cause__ is error
    return str(raised.value)


def test_a_mistake_in_the_code_is_raised_as_it_is():
    with pytest.raises(KeyError), answering("sqlite:///store.db", "it does not answer", knows_revision=bool):
        raise KeyError("mistake")


def test_an_error_that_says_what_to_do_is_left_alone():
    with pytest.raises(RegistryError, match=r"^said$"), answering("sqlite:///store.db", "it does not answer", knows_revision=bool):
        raise RegistryError("said")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Quota"),
        OperationalError("update", {}, Exception("database or disk is full")),
        OSError("API request failed: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_called_so(error):
    assert told(error).startswith("the disk is full: ")
    assert told(error, "http://registry").startswith("the disk of this machine, or that of the MLflow server, is full: ")


def test_a_full_disk_is_found_among_the_causes():
    error = OSError("could not be written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "is full" in told(error)


@pytest.mark.parametrize(("known", "said"), [(True, "older MLflow"), (False, "newer MLflow")])
def test_the_tables_of_another_version_are_told_apart(known, said):
    assert said in told(OSError("Detected out-of-date database schema (found version abc, but expected def)"), known=known)


def test_what_to_do_depends_on_whose_store_it_is():
    assert "See that store.db" in told(OSError("broken"))
    assert "See that the MLflow server runs" in told(OSError("broken"), "https://registry")
    refused = "API request failed with error code 403 != 200. Response body: 'Permission denied'"
    assert "ask the server's administrator" in told(OSError(refused), "https://registry")
