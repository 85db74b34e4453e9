import pytest

from tests.small_book import run, summary_of
from tests.test_champions import aliases, fitted, train, workspace  # noqa: F401


@pytest.fixture
def command(workspace):  # noqa: F811
    def call(*words, code=0):
        ran = run(*words, "--workspace", workspace.folder, "--json")
        assert ran.exit_code == code, ran.stderr
        return summary_of(ran), ran.stderr

    return call


@pytest.fixture
def two_versions(train):  # noqa: F811
    train("champion", noise=0.9)
    train("challenger")


@pytest.mark.usefixtures("two_versions")
def test_models_are_listed_with_what_they_are_and_why(command):
    found, shown = command("models")
    second, first = found["targets"]["churn"]
    assert (second["version"], second["aliases"], second["promotions"]) == ("2", ["challenger"], [])
    assert (first["version"], first["aliases"], first["auc"]["value"]) == ("1", ["champion"], pytest.approx(0.71))
    assert (first["promotions"][0]["way"], first["promotions"][0]["replaced"]) == ("training", None)
    assert found["targets"]["expansion"] == []
    for words in (
        "    2  challenger, AUC 0.800, made ",
        "Trained as challenger.",
        "by training",
        "contraction: no version is registered yet",
    ):
        assert words in shown


@pytest.mark.usefixtures("two_versions")
def test_a_promotion_says_what_it_did_and_what_to_do_next(command, workspace):  # noqa: F811
    found, shown = command("promote", "churn")
    assert (found["status"], found["version"], found["replaced"]) == ("promoted", "2", "1")
    assert "Version 2 is now the champion of churn instead of version 1. It beats the previous champion" in shown
    assert "Run `renewcast score`" in shown
    assert aliases(workspace) == {"champion": "2", "previous": "1"}
    found, shown = command("promote", "churn", "--version", "2")
    assert (found["status"], found["moved"]) == ("unchanged", False)
    assert "Version 2 of churn was not promoted. It is the champion already." in shown


@pytest.mark.usefixtures("two_versions")
def test_a_promotion_by_hand_and_the_way_back(command, workspace):  # noqa: F811
    found, _ = command("promote", "churn", "--version", "2", "--reason", "asked for")
    assert (found["status"], found["reason"]) == ("promoted", "asked for")
    found, shown = command("rollback", "churn", "--reason", "it was [wrong]")
    assert (found["status"], found["champion"]) == ("promoted", "1")
    assert "it was [wrong]" in shown
    assert aliases(workspace) == {"champion": "1"}
    found, shown = command("rollback", "churn", "--reason", "again", code=1)
    assert (found["status"], found["error"]) == ("failed", "RegistryError")
    assert "has no champion to go back to" in shown
    command("promote", "churn", "--reason", "", "--version", "2", code=1)


@pytest.mark.usefixtures("two_versions")
def test_a_card_is_printed_with_its_history(command, workspace):  # noqa: F811
    page = run("card", "churn", "--workspace", workspace.folder).stdout
    assert page.startswith("# The champion's card\n")
    assert "## Which versions were in use" in page
    assert "| 1 | - | training | Trained as champion. |" in page
    found, _ = command("card", "churn", "--version", "2")
    assert (found["version"], found["card"].splitlines()[0]) == ("2", "# The challenger's card")


def test_what_is_not_there_is_an_error(command, train):  # noqa: F811
    assert "Run `renewcast train` first." in command("card", "churn", code=1)[1]
    train("challenger")
    assert "Name one with --version." in command("card", "churn", code=1)[1]
    assert "has no such version" in command("card", "churn", "--version", "9", code=1)[1]
    assert "no challenger to promote" in command("promote", "expansion", code=1)[1]


def test_only_targets_can_be_named(workspace):  # noqa: F811
    ran = run("promote", "upsell", "--workspace", workspace.folder)
    assert ran.exit_code == 2
    assert "churn" in ran.stderr


def test_the_server_that_the_environment_names_is_asked(workspace, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for words in (["models"], ["promote", "churn"], ["rollback", "churn", "--reason", "x"], ["card", "churn"]):
        ran = run(*words, "--workspace", workspace.folder)
        assert ran.exit_code == 1
        assert "http://127.0.0.1:9" in ran.stderr
