"""The notebooks run from top to bottom, show what is kept of them, and use nothing but what the packages show.

With RENEWCAST_REFRESH_NOTEBOOKS set, a notebook that runs is written back with its new outputs.
"""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NEEDED = "needs what runs notebooks: uv sync"
nbformat = pytest.importorskip("nbformat", reason=NEEDED)
pytest.importorskip("nbclient", reason=NEEDED)
pytest.importorskip("ipykernel", reason=NEEDED)

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGES = ("features", "training", "serving")


def read(notebook: Path) -> Any:
    return nbformat.read(notebook, as_version=4)


def code_cells(notebook: Path) -> list[Any]:
    return [cell for cell in read(notebook).cells if cell.cell_type == "code"]


def source_of(cell: Any) -> str:
    """Return a cell's code without a magic in its first line."""
    return re.sub(r"^%.*\n", "", cell.source, flags=re.MULTILINE)


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """Return what a cell shows, in kind: which streams, and in which formats."""
    return [(output.output_type, output.get("name", ""), *sorted(output.get("data", ()))) for output in cell.outputs]


def executed(notebook: Path, folder: Path) -> Any:
    """Run a copy of a notebook in a folder of its own, as `jupyter execute` does; what is tied to this one run is left out."""
    copy = Path(shutil.copy(notebook, folder))
    program = "from nbclient.cli import main; main()"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    call = [sys.executable, "-c", program, "--inplace", "--timeout=600", copy]
    ran = subprocess.run(call, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", ran.stderr)
    found = read(copy)
    found.metadata.language_info = {"name": "python"}
    for cell in found.cells:
        cell.metadata.pop("execution", None)
        cell.update({"outputs": joined(cell.outputs)} if cell.cell_type == "code" else {})
    return found


def joined(outputs: list[Any]) -> list[Any]:
    """Join what was printed to one stream in several pieces."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream" and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


@pytest.fixture(scope="module", autouse=True)
def _fonts():
    """Make matplotlib's cache of fonts, so that on a fresh machine no notebook shows that it is made."""
    import matplotlib.font_manager

    assert matplotlib.font_manager.fontManager.ttflist


def test_there_are_notebooks():
    assert [notebook.stem for notebook in NOTEBOOKS] == [
        "01_look_at_the_book",
        "02_add_a_feature",
        "03_retrain_and_judge",
        "04_explain_an_account",
        "05_forecast_ndr",
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_and_shows_what_is_kept_of_it(notebook, tmp_path):
    found = executed(notebook, tmp_path)
    if os.environ.get("RENEWCAST_REFRESH_NOTEBOOKS"):
        nbformat.write(found, notebook)
    shown = {cell.id: kinds(cell) for cell in found.cells if cell.cell_type == "code"}
    assert shown == {cell.id: kinds(cell) for cell in code_cells(notebook)}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_what_is_kept_is_one_clean_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} <= {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    text = json.dumps(read(notebook))
    assert re.findall(r"(?<![\w.`])/(?:tmp|home|root|work|Users|var)/\w+", text) == []
    assert re.findall(r"<[\w.]+ object at 0x", text) == []
    assert [cell.metadata for cell in read(notebook).cells if cell.metadata] == []
    assert notebook.stat().st_size < 900_000


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_only_what_the_packages_show_is_used(notebook):
    tree = ast.parse("\n".join(source_of(cell) for cell in code_cells(notebook)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES:
            assert node.module in PACKAGES
            assert {alias.name for alias in node.names} <= set(importlib.import_module(node.module).__all__)
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES and "." in alias.name]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PACKAGES:
            assert node.attr in importlib.import_module(node.value.id).__all__


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_links_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in read(notebook).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not link.startswith("https://") and not (notebook.parent / link).exists()] == []
