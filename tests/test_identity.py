import stat

import pytest

from serving.callers.identity import ROLES, SCOPES, default_scopes, read_secret
from serving.permissions.caller import VENDOR, Caller


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "state" / "secret.key"
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_who_may_do_more_may_do_all_that_others_may():
    for caller in (VENDOR, Caller("p1")):
        most, more, least = (default_scopes(role, caller) for role in ROLES)
        assert least < more <= most
    assert default_scopes("administrator", VENDOR) == set(SCOPES)


@pytest.mark.parametrize("role", ROLES)
def test_a_partner_runs_nothing(role):
    assert not default_scopes(role, Caller("p1")) & {"admin", "metrics"}
