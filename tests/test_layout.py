"""The shape of the project: folders, who imports whom, and which module alone may do what."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("features", "training", "serving")
FOLDERS = {*PACKAGES, "notebooks", "tests", "mlflow"}
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if "migrations" not in file.parts)
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Return what belongs to the project; in a copy without its history, what lies in the known places."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    else:
        places = [ROOT / ".ci", *(ROOT / name for name in FOLDERS)]
        listed = [str(file.relative_to(ROOT)) for place in places for file in place.rglob("*") if "__pycache__" not in file.parts]
        listed += [file.name for file in ROOT.iterdir() if file.is_file() and file.name != "uv.lock"]
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def module(file: Path) -> str:
    """Return a file's dotted name: `features.clock`, or `features` for its `__init__`."""
    return ".".join(part for part in file.relative_to(ROOT).with_suffix("").parts if part != "__init__")


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names that a module imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def places(tree: ast.AST, kind: type[ast.AST]) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


IMPORTS = {module(file): imported(tree) for file, tree in TREES.items()}
FOLDERS_OF_MODULES = {module(file) for file in FILES if file.stem == "__init__"}
OWN_IMPORTS = {name: sorted(names & set(IMPORTS) - {name} - FOLDERS_OF_MODULES) for name, names in IMPORTS.items()}


def test_top_level_folders_are_the_agreed_ones():
    tops = {file.relative_to(ROOT).parts[0] for file in tracked() if len(file.relative_to(ROOT).parts) > 1}
    assert {top for top in tops if not top.startswith(".")} <= FOLDERS
    assert set(PACKAGES) <= tops


def test_nothing_shadows_mlflow():
    assert not list((ROOT / "mlflow").glob("*.py"))


@pytest.mark.parametrize(("package", "above"), [("features", {"training", "serving"}), ("training", {"serving"})])
def test_imports_point_one_way(package, above):
    upward = {name: names for name, imports in IMPORTS.items() if (names := {n for n in imports if n.split(".")[0] in above})}
    assert {name for name in upward if name.split(".")[0] == package} == set()


def test_modules_import_modules_and_never_what_a_package_shows():
    shown = [node for tree in TREES.values() for node in places(tree, ast.ImportFrom) if node.module in FOLDERS_OF_MODULES]
    assert shown
    assert [ast.unparse(node) for node in shown if not {f"{node.module}.{alias.name}" for alias in node.names} <= set(IMPORTS)] == []


def test_no_module_imports_itself_through_others():
    tuple(TopologicalSorter(OWN_IMPORTS).static_order())  # raises CycleError
    assert OWN_IMPORTS["features.clock"] == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("duckdb", {"features.engine"}),
        ("mlflow", {"training.registry"}),
        ("bentoml", {"serving.service"}),
        ("psycopg", {"features.databases", "serving.records.silence"}),
        ("typer", {"serving.commands.options", *(name for name in IMPORTS if name.startswith("serving.commands.cli"))}),
        (
            "sqlalchemy",
            {
                "serving.answers.contributions",
                "serving.answers.feedback",
                "serving.answers.newest_first",
                "serving.api.idempotency",
                "serving.records.tables",
                "serving.records.silence",
                "serving.records.store",
                "serving.callers.extracts",
                "serving.callers.keys",
                "serving.callers.sessions",
                "serving.callers.shipping",
                "training.registry",
            },
        ),
    ],
)
def test_an_outside_system_is_named_by_the_modules_that_own_it(library, allowed):
    naming = {name for name, imports in IMPORTS.items() if any(library in part.split(".") for part in imports)}
    if library == "duckdb":
        naming |= {module(file) for file, tree in TREES.items() if "ibis.duckdb" in map(ast.unparse, places(tree, ast.Attribute))}
    assert naming <= allowed
    assert naming, f"nobody uses {library}"


READS_ENVIRONMENT = {
    "serving.settings",
    "training.registry",  # sets what MLflow's client reads from there and nowhere else; reads nothing
}


def test_one_module_reads_the_environment():
    reading = {name for name, imports in IMPORTS.items() if imports & {"os.environ", "os.getenv", "dotenv"}}
    for file, tree in TREES.items():
        words = {ast.unparse(node) for node in places(tree, ast.Attribute)}
        if words & {"os.environ", "os.getenv"}:
            reading.add(module(file))
    assert reading == READS_ENVIRONMENT
    registry = (ROOT / "training" / "registry.py").read_text(encoding="utf-8")
    assert re.findall(r"os\.environ\b\S*?(?=\()|os\.environ\b(?!\.)|getenv", registry) == ["os.environ.setdefault"]


TIME = re.compile(r"cutoffs?|instant|due|data_(from|until)|valid_(from|to)|test_(from|to)|\w+_(at|date)")
COMPARES_TIMES = {
    "features.clock",
    "features.world_course",  # days of an invented world, counted from its first: no feature and no label comes from there
}


def compared_times(tree: ast.AST) -> list[str]:
    """Return the comparisons in which something is named like a time."""
    orders = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
    found = [n for n in places(tree, ast.Compare) if any(isinstance(operator, orders) for operator in n.ops) and not with_number(n)]
    return [
        ast.unparse(node) for node in found if any(TIME.fullmatch(name) for side in (node.left, *node.comparators) for name in named(side))
    ]


def with_number(node: ast.Compare) -> bool:
    return any(isinstance(side, ast.Constant) and isinstance(side.value, int | float) for side in node.comparators)


def named(node: ast.expr) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return [name]
        case ast.BinOp(left=left, right=right):
            return named(left) + named(right)
        case ast.Subscript(value=value) | ast.UnaryOp(operand=value):
            return named(value)
    return []


def test_one_module_compares_times():
    comparing = {module(file): found for file, tree in TREES.items() if (found := compared_times(tree))}
    assert {name: found for name, found in comparing.items() if name not in COMPARES_TIMES} == {}
    assert set(comparing) == COMPARES_TIMES


def test_no_query_compares_times_in_text():
    order = re.compile(rf"\b({TIME.pattern})\b\s*[<>]=?|[<>]=?\s*\b({TIME.pattern})\b", re.IGNORECASE)
    inside = []
    for file, tree in TREES.items():
        texts = {id(node.value) for node in places(tree, ast.Expr)}  # docstrings explain the rule
        strings = (node for node in places(tree, ast.Constant) if isinstance(node.value, str) and id(node) not in texts)
        inside += [f"{module(file)}: {node.value}" for node in strings if order.search(node.value)]
    assert inside == []


def test_names_of_modules_are_their_own():
    names = Counter(file.stem for file in FILES if file.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []
    installed = importlib.metadata.packages_distributions()
    direct = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    libraries = {top for top, owners in installed.items() if direct & {canonicalize_name(owner) for owner in owners}}
    assert set(names) & (set(sys.stdlib_module_names) | libraries) == set()


def test_nothing_is_unpickled():
    executed_when_read = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    assert {name for name, imports in IMPORTS.items() if {part.split(".")[0] for part in imports} & executed_when_read} == set()
    calls = {ast.unparse(node) for tree in TREES.values() for node in places(tree, ast.Attribute)}
    assert {call for call in calls if re.search(r"\b(read_pickle|to_pickle|pickle)\b", call)} == set()
    assert not any("allow_pickle=True" in file.read_text(encoding="utf-8") for file in FILES)


# Modules that another module's tests hold, because they say nothing on their own.
TESTED_WITH = {
    "features.commercial": "test_snapshots",
    "features.engagement": "test_snapshots",
    "features.outcomes": "test_snapshots",
    "features.kinds": "test_snapshots",
    "features.partner": "test_snapshots",
    "features.peers": "test_snapshots",
    "features.plan": "test_preparation",
    "features.support": "test_snapshots",
    "features.usage": "test_snapshots",
    "features.rhythm": "test_snapshots",
    "features.spans": "test_snapshots",
    "features.month_tallies": "test_use_counts",
    "features.day_counts": "test_use_counts",
    "features.habits": "test_use_counts",
    "features.day_tallies": "test_use_counts",
    "features.use_tallies": "test_use_counts",
    "features.forms": "test_numbered",
    "features.numbering": "test_numbered",
    "features.databases": "test_sources",
    "features.textfiles": "test_sources",
    "features.checks": "test_intake",
    "features.expressions": "test_intake",
    "features.mapping": "test_intake",
    "features.quarantine": "test_intake",
    "features.staging": "test_intake",
    "features.deliveries": "test_increments",
    "features.pieces": "test_increments",
    "features.batches": "test_increments",
    "features.queries": "test_spark_engine",
    "features.lake": "test_spark_engine",
    "features.lake_snapshots": "test_spark_engine",
    "training.lake_scores": "test_spark_engine",
    "features.profiles": "test_discovery",
    "features.proposal": "test_discovery",
    "features.synonyms": "test_discovery",
    "features.config": "test_workspace",
    "features.declarations": "test_workspace",
    "features.table_declarations": "test_workspace",
    "features.section": "test_workspace",
    "features.feature": "test_catalogue",
    "features.reference": "test_docs",
    "features.world": "test_simulate",
    "features.world_contacts": "test_simulate",
    "features.world_contracts": "test_simulate",
    "features.world_course": "test_simulate",
    "features.world_hazard": "test_simulate",
    "features.world_names": "test_simulate",
    "features.world_population": "test_simulate",
    "features.world_telemetry": "test_simulate",
    "features.progress": "test_pipeline",
    "training.leaves": "test_boughs",
    "training.row_tables": "test_leaf_tables",
    "training.column_tables": "test_leaf_tables",
    "training.package_files": "test_package",
    "training.canvas": "test_figures",
    "training.gallery": "test_figures",
    "training.model_figures": "test_figures",
    "training.phrases": "test_card",
    "features.findings": "test_probes",
    "features.hindsight": "test_probes",
    "features.label_times": "test_probes",
    "features.row_times": "test_probes",
    "training.giveaways": "test_audit",
    "training.screening": "test_audit",
    "serving.answers.account_answers": "test_api",
    "serving.answers.contribution_answers": "test_routes_contributions",
    "serving.answers.newest_first": "test_feedback",
    "serving.web.pages_sign_in": "test_code_flow",
    "serving.api.remarks": "test_routes_feedback",
    "serving.answers.schema_contributions": "test_routes_contributions",
    "serving.answers.schema_feedback": "test_routes_feedback",
    "serving.permissions.partner_facts": "test_supplies",
    "serving.permissions.caller": "test_sharing",
    "serving.permissions.policies": "test_policy",
    "serving.permissions.policy_lines": "test_policy",
    "serving.answers.disclosure": "test_cli_policy",
    "serving.app": "test_api",
    "serving.answers.namesakes": "test_moves",
    "serving.answers.schema_changes": "test_routes_changes",
    "serving.commands.options": "test_cli",
    "training.backtest": "test_procedure",
    "training.copies": "test_pipeline",
    "serving.operations.borders": "test_api",
    "serving.callers.background": "test_journal",
    "serving.callers.extracts": "test_cli_store",
    "serving.callers.spool": "test_journal",
    "serving.callers.shipping": "test_journal",
    "serving.operations.access": "test_staying_up",
    "serving.operations.connections": "test_staying_up",
    "serving.operations.draining": "test_staying_up",
    "serving.operations.gauges": "test_metrics",
    "serving.answers.schema_service": "test_api",
    "serving.operations.upkeep": "test_staying_up",
    "serving.operations.routes_service": "test_api",
    "serving.answers.portfolio": "test_api",
    "serving.commands.cli_api": "test_api_document",
    "serving.api.desk": "test_api",
    "serving.api.filters": "test_api",
    "serving.api.methods": "test_routing",
    "serving.api.routes_accounts": "test_api",
    "serving.web.routes_document": "test_api_document",
    "serving.api.routes_export": "test_exports",
    "serving.api.routes_models": "test_model_answers",
    "serving.api.routes_partners": "test_partner_books",
    "serving.api.routes_predict": "test_api",
    "serving.api.routes_retention": "test_retention_answers",
    "serving.answers.schema_portfolio": "test_partner_books",
    "serving.api.tags": "test_routing",
    "serving.answers.problems": "test_api",
    "serving.answers.schema": "test_api",
    "serving.web.charts": "test_pages",
    "serving.web.charts_feature": "test_feature_courses",
    "serving.web.charts_record": "test_track_record",
    "serving.web.pages_account": "test_pages",
    "serving.web.pages_all": "test_pages",
    "serving.web.charts_retention": "test_pages_portfolio",
    "serving.web.pages_models": "test_pages_portfolio",
    "serving.web.pages_partners": "test_pages_portfolio",
    "serving.web.pages_retention": "test_pages_portfolio",
    "serving.web.pages_remarks": "test_pages_forms",
    "serving.web.pages_what_if": "test_pages",
    "serving.web.pages_appearance": "test_pages",
    "serving.web.pages_book": "test_pages",
    "serving.web.pages_frame": "test_pages",
    "serving.web.pages_track": "test_track_record",
    "serving.api.routes_track": "test_track_record",
    "serving.answers.schema_track": "test_track_record",
    "serving.scores.facts": "test_batch",
    "serving.scores.scoring": "test_batch",
    "serving.scores.score_writer": "test_windows",
    "serving.settings": "test_service",
    "serving.records.tables": "test_store",
}


def test_every_module_has_its_tests():
    tests = {file.stem for file in (ROOT / "tests").glob("test_*.py")}
    modules = set(IMPORTS) - FOLDERS_OF_MODULES
    untested = {name for name in modules if TESTED_WITH.get(name, f"test_{name.split('.')[-1]}") not in tests}
    assert untested == set()
    assert {name for name in TESTED_WITH if name not in modules or f"test_{name.split('.')[-1]}" in tests} == set()


def test_every_test_file_tests_a_module_or_the_whole_project():
    whole = {
        "test_api",
        "test_bad_input",
        "test_benchmarks",
        "test_container",
        "test_docs",
        "test_fuzz",
        "test_generated_client",
        "test_layout",
        "test_no_leaks",
        "test_pages_portfolio",
        "test_notebooks",
        "test_staying_up",
        "test_staying_up_database",
        "test_tracking_server",
        "test_warehouses",
    }
    named_after = {f"test_{name.split('.')[-1]}" for name in IMPORTS}
    workspaces = {"test_real_books", "test_recovery"}
    assert {file.stem for file in (ROOT / "tests").glob("test_*.py")} <= named_after | whole | workspaces


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_shows_what_it_names(package):
    opened = importlib.import_module(package)
    own_modules = {name.split(".")[1] for name in IMPORTS if name.startswith(f"{package}.")}
    visible = {name for name in dir(opened) if not name.startswith("_")} - own_modules
    assert visible == set(opened.__all__)
    assert all(hasattr(opened, name) for name in opened.__all__)


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "__init__"], ids=module)
def test_a_module_names_what_is_public(file):
    tree = TREES[file]
    listed = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    assert len(listed) == 1, "one __all__"
    public = ast.literal_eval(listed[0].value)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    decorated = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list}
    called_by_framework = file.stem == "cli" or file.stem.startswith(("pages", "routes_"))  # commands and routes
    handlers = decorated if called_by_framework else set()
    assert {name for name in defined if not name.startswith("_")} - handlers <= set(public)
    assert ast.get_docstring(tree), "what the module is"


WATCH = """
import sys
{imports}
heavy = {{"mlflow", "bentoml", "ibis", "duckdb", "shap", "pyspark", "psycopg", "matplotlib", "optuna", "IPython"}}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(("imports", "loaded"), [("import features, training, serving", "[]"), ("import serving.commands.cli", "[]")])
def test_importing_does_nothing_and_loads_nothing_heavy(tmp_path, imports, loaded):
    home = tmp_path / "home"
    home.mkdir()
    environ = {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    code = WATCH.format(imports=imports)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == loaded
    assert ran.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path != home] == []


WITHOUT_EXTRAS = """
import sys
for name in ("psycopg", "psycopg_binary", "psycopg2", "pyspark", "jupyterlab", "IPython", "flask_wtf", "pymssql"):
    sys.modules[name] = None  # importing it now fails as if it were not installed
import importlib
for name in {modules}:
    importlib.import_module(name)
"""


def test_everything_imports_without_extras():
    code = WITHOUT_EXTRAS.format(modules=sorted(name for name in IMPORTS if name != "training.registry"))
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def requirements(texts) -> dict[str, Requirement]:
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, texts)}


DIRECT = requirements(PROJECT["project"]["dependencies"])
EXTRAS = requirements(text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra)
PINS = [Requirement(text) for text in PROJECT["tool"]["uv"]["constraint-dependencies"]]

NOT_IMPORTED = {
    "python-multipart",  # FastAPI reads forms with it
    "shap",  # for notebooks, and in the tests that hold our parts against it
}


def test_what_is_imported_is_declared_and_the_reverse():
    owners = {top: {canonicalize_name(name) for name in names} for top, names in importlib.metadata.packages_distributions().items()}
    tops = {part.split(".")[0] for imports in IMPORTS.values() for part in imports}
    outside = tops - set(sys.stdlib_module_names) - set(PACKAGES)
    undeclared = {top for top in outside if not owners.get(top, set()) & (set(DIRECT) | set(EXTRAS))}
    assert undeclared == set()
    used = set().union(*(owners[top] for top in outside))
    assert set(DIRECT) - used == NOT_IMPORTED


def test_every_direct_dependency_is_pinned_within_its_bounds():
    groups = requirements(text for group in PROJECT["dependency-groups"].values() for text in group)
    for name, requirement in (DIRECT | EXTRAS | groups).items():
        pins = [pin for pin in PINS if canonicalize_name(pin.name) == name]
        assert pins, f"{name} has no pin"
        for pin in pins:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), f"{pin} is outside of {requirement}"


def test_the_tests_run_on_the_pinned_versions():
    pinned = {pin.name: next(iter(pin.specifier)).version for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    different = {}
    for name in DIRECT:
        installed = importlib.metadata.version(name)
        if installed != pinned[name]:
            different[name] = (installed, pinned[name])
    assert different == {}


ADDRESS = re.compile(r"https?://\S+\.(whl|tar\.gz|tgz)\b|files\.python[h]osted|(?<![\w.])/(home|root|work|Users)/\w")
CREDENTIAL = re.compile(r"://(?!u:secret@|user:password@)[^/\s\"'{}<>()?]+:[^/\s\"'{}<>()?]+@")
TEXT = {".py", ".md", ".toml", ".html", ".css", ".svg", ".yaml", ".yml", ".ipynb", ""}
IMAGE = re.compile(r'"image/png": "[^"]*"')
WORDS = re.compile(r"T[O]DO|FIX[M]E|X[X]X|HA[C]K|NotImplemented[E]rror")


@pytest.mark.parametrize("file", [file for file in tracked() if file.suffix in TEXT], ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_left_open_and_no_machine_is_named(file):
    text = IMAGE.sub("", file.read_text(encoding="utf-8"))
    assert WORDS.search(text) is None
    assert [found[0] for pattern in (ADDRESS, CREDENTIAL) for found in pattern.finditer(text)] == []
    own = [str(ROOT.parent) + "/", str(Path.home()) + "/"]
    assert not any(path in text for path in own if len(path) > 2)


def test_locks_that_name_registries_are_ignored():
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "uv.lock" not in {file.name for file in tracked()}


SKIP = re.compile(r"""(?:pytest\.skip\(|importorskip\([^)]*reason=|skipif\([^)]*reason=)f?"([^"]*)""")


def test_a_skipped_test_says_what_it_needs_or_that_the_platform_cannot():
    reasons = [reason for file in (ROOT / "tests").rglob("*.py") for reason in SKIP.findall(file.read_text(encoding="utf-8"))]
    assert len(reasons) > 5
    assert [reason for reason in reasons if not reason.startswith(("needs ", "platform: "))] == []


SKIPPED = """
import pytest

def test_missing():
    pytest.skip("needs no such program")

@pytest.mark.skipif(True, reason="platform: not here")
def test_impossible():
    pass
"""


@pytest.mark.parametrize(("may_skip", "outcome"), [("", "2 skipped"), ("1", "1 failed, 1 skipped")])
def test_where_nothing_may_be_skipped_a_missing_component_fails(tmp_path, monkeypatch, may_skip, outcome):
    monkeypatch.setenv("RENEWCAST_NO_SKIP", may_skip)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path, tmp_path]
    ran = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome in ran.stdout
