"""What the documents say is so, and what is so is in the documents."""

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from features.contracts import CONTRACT
from features.reference import full_catalogue, render_reference
from features.workspace import load_workspace
from serving.app import ROUTERS
from serving.commands.cli import app
from serving.scores.batch import score_workspace
from serving.web import pages_all
from tests.serving_book import make_workspace

ROOT = Path(__file__).parent.parent
PACKAGES = ("features", "training", "serving")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "mlflow/README.md", "features/WORKSPACE.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]
EVERYTHING = "\n".join(TEXTS.values())


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands() -> dict[str, set[str]]:
    """Return the options of each command by its full name."""
    found = {}
    for name, command in get_command(app).commands.items():
        for inner, leaf in getattr(command, "commands", {"": command}).items():
            options = {option for parameter in leaf.params for option in parameter.opts if option.startswith("--")}
            found[f"{name} {inner}".strip()] = options | {"--help"}
    return found


COMMANDS = commands()
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


def calls() -> list[tuple[str, list[str]]]:
    """Return the calls of `renewcast` in all documents: in code blocks, and between backticks."""
    lines = [line for text in TEXTS.values() for block in blocks(text, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(renewcast [^`\n]+)`", EVERYTHING)
    found = []
    for line in lines:
        for part in re.split(r"&&|\|", line.split(" #")[0]):
            words = shlex.split(part)
            if "renewcast" in words[:4]:
                words = words[words.index("renewcast") + 1 :]
                length = 2 if words[0] in GROUPS else 1
                found.append((" ".join(words[:length]), [word for word in words[length:] if word.startswith("--")]))
    return found


@pytest.mark.parametrize(("command", "options"), calls())
def test_a_command_that_is_named_exists_with_its_options(command, options):
    assert command in COMMANDS
    assert set(options) <= COMMANDS[command]


def test_every_command_and_option_is_documented():
    assert set(COMMANDS) <= {command for command, _ in calls()}
    chapter = README.split("## Commands")[1].split("\n## ")[0]
    named = set(re.findall(r"--[a-z][a-z-]+", chapter))
    assert named == set().union(*COMMANDS.values()) - {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#]+)\)", TEXTS[page])
    assert [link for link in links if not link.startswith("https://") and not (folder / link).exists()] == []
    paths = re.findall(r"`((?:features|training|serving|tests|notebooks|mlflow|\.ci)/[\w./-]*)`", TEXTS[page])
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_pictures_are_small():
    pictures = sorted((ROOT / ".readme").iterdir())
    assert {f".readme/{picture.name}" for picture in pictures} == set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_addresses_are_those_of_the_service():
    chapter = README.split("| address |")[1].split("\n## ")[0]
    named = {tuple(found) for found in re.findall(r"`(GET|POST) (/[^`]*)`", chapter)}
    served = {(method, route.path) for router in ROUTERS for route in router.routes for method in route.methods}
    forms = {("POST", route.path) for router in pages_all.PAGES for route in router.routes if "POST" in route.methods}
    for_people = {("GET", "/sign-in"), ("GET", "/sign-in/account"), ("GET", "/sign-in/back"), *forms}  # what a link and a button call
    assert named == served - for_people


def load(config: str, folder: Path):
    (folder / "renewcast.toml").write_text(config, encoding="utf-8")
    return load_workspace(folder, {"BILLING_URL": "postgresql://example"}).config


@pytest.mark.parametrize(("page", "config"), [(page, block) for page, text in TEXTS.items() for block in blocks(text, "toml")])
def test_configs_that_are_shown_can_be_read(page, config, tmp_path):
    assert {"accounts", "telemetry"} <= set(load(config, tmp_path).tables)


def test_ten_lines_are_ten_lines():
    (config,) = blocks(README, "toml")
    assert len(config.strip().splitlines()) <= 10


def test_every_key_is_documented_and_every_default_is_what_it_says(tmp_path):
    config = blocks(TEXTS["features/WORKSPACE.md"], "toml")[0]
    asked = {"parameters", "above", "below"}
    for module in ("declarations", "workspace"):
        for node in ast.walk(ast.parse((ROOT / "features" / f"{module}.py").read_text(encoding="utf-8"))):
            reads = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
            ways = {"get", "text", "texts", "choice", "whole", "number", "instant", "section", "sections"}
            if reads and node.func.attr in ways and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                asked.add(node.args[0].value)
    shown = set(keys(tomllib.loads(config))) | set(re.findall(r"# .*\{ (\w+) = ", config))
    assert asked - shown == set()

    plain = load(
        '[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n[tables.subscriptions]\nsource = "s.csv"', tmp_path
    )
    full = load(config, tmp_path)
    assert full.targets == plain.targets
    assert full.cutoffs.every == plain.cutoffs.every
    assert full.cutoffs.before_renewal_days == plain.cutoffs.before_renewal_days
    settings = ("folds", "minimum_positives", "seed", "trials", "plausible_auc")
    assert [getattr(full.training, name) for name in settings] == [getattr(plain.training, name) for name in settings]
    assert full.features.top_events == plain.features.top_events
    assert full.serving == plain.serving
    assert (full.currency, full.quarantine_limit) == (plain.currency, plain.quarantine_limit)
    assert (full.engine, full.spark.sample_rows) == (plain.engine, plain.spark.sample_rows)


def keys(values: object) -> list[str]:
    if isinstance(values, list):
        return [key for value in values for key in keys(value)]
    if isinstance(values, dict):
        return [*values, *(key for value in values.values() for key in keys(value))]
    return []


def test_the_contract_is_documented_table_by_table():
    for table, contract in CONTRACT.items():
        needed = " (needed)" if contract.required else ""
        columns = ", ".join(f"**{name}**" if column.required else name for name, column in contract.columns.items())
        assert f"| {table}{needed} | {contract.meaning} | {columns} |" in TEXTS["features/WORKSPACE.md"]


def test_the_reference_page_is_current():
    page = (ROOT / "features" / "REFERENCE.md").read_text(encoding="utf-8")
    assert page == render_reference(full_catalogue()), "write it again as CONTRIBUTING.md says"


def test_features_that_are_named_exist():
    catalogue = full_catalogue().names
    named = re.findall(r"`([a-z_]+_\d+d(?:_[a-z]+)?)`", EVERYTHING)
    in_example = re.findall(r"^[+-]\d\.\d+  (\w+) =", README, re.MULTILINE)
    assert in_example
    assert set(named + in_example) <= set(catalogue)


def test_variables_that_are_named_are_read():
    code = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in (*PACKAGES, "tests", ".ci")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix in {".py", ".toml", ""}
    )
    variable = r"\b(?:RENEWCAST|MLFLOW_TRACKING)_[A-Z_]+"
    named = set(re.findall(variable, EVERYTHING))
    assert named == set(re.findall(variable, code))


def test_the_map_shows_every_module_below_those_that_it_imports():
    chapter = README.split("## How it is built")[1]
    for package in PACKAGES:
        table = chapter.split(f"| `{package}/` |")[1].split("\n\n")[0]
        shown = re.findall(r"`(\w+)`", table)
        files = {file.stem: file for file in (ROOT / package).rglob("*.py") if file.stem != "__init__" and "migrations" not in file.parts}
        assert sorted(shown) == sorted(files)
        for position, name in enumerate(shown):
            tree = ast.parse(files[name].read_text(encoding="utf-8"))
            sources = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
            imported = {source.split(".")[-1] for source in sources if source.startswith(f"{package}.")} & set(files)
            assert imported <= set(shown[:position]), f"{package}.{name} stands above what it imports"


def test_the_example_in_python_runs_on_another_book(tmp_path, monkeypatch, capsys):
    (example,) = blocks(README, "python")
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    (tmp_path / ".demo").symlink_to(workspace.folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    account = re.search(r'index\["(\w+)"\]', example)[1]
    exec(compile(example.replace(account, "acc-0100"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    printed = blocks(README, "text")[1].splitlines()
    assert len(lines) == len(printed)
    left, right = lines[1].split(" = ")
    assert float(left) == pytest.approx(float(right), abs=1e-6)


def test_the_code_in_mlflow_s_page_names_what_exists():
    from training import copies

    assert "sync_champions" in TEXTS["mlflow/README.md"]
    assert "workspace" in inspect.signature(copies.sync_champions).parameters


def test_the_changelog_knows_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version in TEXTS["CHANGELOG.md"]
