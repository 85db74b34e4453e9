import json
import re

import pytest

from serving.settings import operator_name
from tests.serving_book import CONFIG
from tests.small_book import run, summary_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    return tmp_path


def keys(folder, *words):
    return run("keys", *words, "--workspace", folder, "--json")


def issued(folder, *words):
    return summary_of(keys(folder, "issue", "--as", "vendor", "--label", "crm", *words))["key"].split("_")[1]


def listed(folder):
    return {key["key_id"]: key for key in summary_of(keys(folder, "list"))["keys"]}


def test_a_key_is_listed_with_its_role_and_its_end_and_without_its_secret(folder):
    assert listed(folder) == {}
    plain, short = issued(folder), issued(folder, "--role", "csm", "--days", 30, "--scope", "predict")
    found = listed(folder)
    assert list(found) == [plain, short]
    assert (found[plain]["state"], found[plain]["role"], found[plain]["expires_at"]) == ("live", "analyst", None)
    assert (found[short]["role"], found[short]["scopes"]) == ("csm", ["predict"])
    assert found[short]["expires_at"] > found[short]["created_at"]
    assert "hash" not in json.dumps(found)


def test_rotating_and_revoking_show_in_the_list(folder):
    old = issued(folder)
    answer = summary_of(keys(folder, "rotate", old, "--overlap-hours", 2))
    new = answer["key"].split("_")[1]
    assert answer["replaces"] == old
    assert listed(folder)[old]["replaced_by"] == new
    shown = run("keys", "list", "--workspace", folder).stderr
    assert re.search(rf"{old} .*until", shown)
    assert shown.count(new) == 2  # after the old one's end, and in its own line
    summary_of(keys(folder, "revoke", new))
    assert listed(folder)[new]["state"] == "revoked"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rotate", "none"), "there is none"),
        (("revoke", "none"), "renewcast keys list"),
        (("issue", "--as", "vendor", "--label", "x", "--role", "analist"), "did you mean 'analyst'"),
        (("issue", "--as", "vendor", "--label", "x", "--scope", "exports"), "did you mean 'export'"),
        (("issue", "--as", "partner:p1", "--label", "x", "--scope", "metrics"), "vendor's alone"),
    ],
)
def test_what_cannot_be_done_is_said(folder, words, said):
    ran = keys(folder, *words)
    assert ran.exit_code == 1
    assert said in ran.stderr


def test_a_link_for_one_person(folder):
    made = summary_of(run("links", "--as", "partner:p1", "--role", "analyst", "--person", "ada", "--workspace", folder, "--json"))
    assert made["link"].startswith("http://127.0.0.1:3000/sign-in?token=")
    assert (made["caller"], made["role"], made["person"]) == ("partner:p1", "analyst", "ada")


def test_what_is_handed_on_stands_alone_on_standard_output(folder):
    issued_key = run("keys", "issue", "--as", "vendor", "--label", "crm", "--workspace", folder)
    key = issued_key.stdout.removesuffix("\n")
    assert re.fullmatch(r"rk_[0-9a-f]{12}_\S+", key)
    rotated = run("keys", "rotate", key.split("_")[1], "--workspace", folder)
    link = run("links", "--as", "vendor", "--workspace", folder)
    assert re.fullmatch(r"rk_\S+\n", rotated.stdout)
    assert re.fullmatch(r"http://127.0.0.1:3000/sign-in\?token=\S+\n", link.stdout)
    assert run("links", "--workspace", folder).stdout.count("/sign-in?token=") == 1, "no partner has accounts yet"
    for ran in (issued_key, rotated, link):
        assert ran.stdout.strip() not in ran.stderr
        assert ran.stderr


def test_a_machine_finds_the_secret_in_its_summary_and_nowhere_else(folder):
    ran = keys(folder, "issue", "--as", "vendor", "--label", "crm")
    assert summary_of(ran)["key"] not in ran.stderr


def test_who_let_whom_in_is_in_the_journal_and_no_secret_is(folder):
    old = summary_of(keys(folder, "issue", "--as", "partner:p1", "--label", "crm"))["key"]
    new = summary_of(keys(folder, "rotate", old.split("_")[1]))["key"]
    keys(folder, "revoke", new.split("_")[1])
    assert keys(folder, "revoke", new.split("_")[1]).exit_code == 1, "and leaves no line"
    link = run("links", "--as", "partner:p1", "--role", "analyst", "--person", "ada", "--workspace", folder).stdout.strip()
    run("links", "--workspace", folder)
    exported = run("journal", "export", "--workspace", folder).stdout
    lines = [json.loads(line) for line in exported.splitlines()]
    first, second = (f"key:{key.split('_')[1]}" for key in (old, new))
    *of_keys, of_link, of_links = [(line["action"], line["reason"]) for line in lines]
    assert of_keys == [("issue key", f"{first} of partner:p1"), ("rotate key", f"{second} in place of {first}"), ("revoke key", second)]
    assert of_link[0] == of_links[0] == "make link"
    assert re.fullmatch(r"link:[0-9a-f]{12} of partner:p1 as analyst for ada", of_link[1])
    assert re.fullmatch(r"link:[0-9a-f]{12} of vendor as administrator", of_links[1])
    assert {(line["caller"], line["credential"], line["subject"]) for line in lines} == {("vendor", "command", operator_name())}
    for secret in (old.split("_", 2)[2], new.split("_", 2)[2], link.partition("token=")[2]):
        assert secret not in exported


def test_links_begin_with_the_address_that_people_know(folder):
    (folder / "renewcast.toml").write_text(CONFIG + '[serving]\naddress = "https://renewcast.example.com"\n')
    assert run("links", "--workspace", folder).stdout.startswith("https://renewcast.example.com/sign-in?token=")
    assert run("links", "--port", 4711, "--workspace", folder).stdout.startswith("http://127.0.0.1:4711/sign-in?token=")
