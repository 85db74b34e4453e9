"""Features of one's own: what a workspace declares in Python files, checked before it is computed.

`own = "my_features.py"` in `[features]` names a file beside `renewcast.toml` that defines `FEATURES`, a tuple of the same `Feature`
objects as the built-in ones. The step that computes features runs the file, and nothing else does: scoring and serving read what was
declared from the catalogue's file, where there is no code.

But: a file is run as it is, with all that Python may do, and what it imports from elsewhere is not part of its fingerprint.
"""

import hashlib
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from features.catalogue import Catalogue
from features.errors import ConfigError, explain, nearest
from features.families import KEYS, MADE_FROM, VIEWS
from features.feature import Expression, Feature, Window
from features.progress import Progress, silent
from features.queries import QueryEngine
from features.slices import KnownTables, Spine, summed
from features.snapshots import build_matrix
from features.sums import exactly
from features.workspace import Workspace

__all__ = [
    "OwnFeature",
    "add_own_features",
    "build_matrix_of_own",
    "own_fingerprint",
    "read_own_features",
    "refuse_infinite",
    "with_inputs",
]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = KEYS | {"row"}
_COLUMNS_OF_A_ROW = {"row": pa.int64(), "account_id": pa.string(), "cutoff": pa.timestamp("us"), "segment": pa.string()}


@dataclass(frozen=True)
class OwnFeature:
    """A feature and the file that declares it, so that every error can name both."""

    file: Path
    feature: Feature

    def wrong(self, what: str, *, given: object = None, allowed: object = None, todo: str = "") -> ConfigError:
        """Compose the error for this feature."""
        return ConfigError(explain(f"{self.file.name}: the feature {self.feature.name} {what}", given=given, allowed=allowed, todo=todo))


def own_fingerprint(workspace: Workspace) -> str:
    """Return a digest of the contents of the workspace's own feature files.

    Raises
    ------
    ConfigError
        If one cannot be read.
    """
    digest = hashlib.sha256()
    for file in _files(workspace):
        digest.update(hashlib.sha256(_source(file)).digest())
    return digest.hexdigest()


def read_own_features(workspace: Workspace) -> tuple[OwnFeature, ...]:
    """Run the workspace's own feature files and return what they declare, in their order.

    Raises
    ------
    ConfigError
        If a file is missing, is not Python, fails when it is run, or does not define `FEATURES` as it should.
    """
    return tuple(OwnFeature(file, feature) for file in _files(workspace) for feature in _declared(file, _run(file)))


def _files(workspace: Workspace) -> list[Path]:
    return [workspace.folder / name for name in workspace.config.features.own]


def _source(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        beside = ", ".join(sorted(path.name for path in file.parent.glob("*.py"))) or "no Python file"
        todo = "Write the file, or correct own in [features]."
        raise ConfigError(
            explain(f"features.own names a file that cannot be read: {error.strerror}", given=file, allowed=beside, todo=todo)
        ) from error


def _run(file: Path) -> Mapping[str, object]:
    """Return what the file defines; it is compiled here, so that nothing is written beside it."""
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    try:
        exec(compile(_source(file), str(file), "exec"), vars(module))
    except SyntaxError as error:
        given = (error.text or "").strip()
        raise ConfigError(explain(f"{file.name}, line {error.lineno}, is not Python: {error.msg}", given=given)) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(explain(f"{file.name}{_line(file, error)} fails: {type(error).__name__}: {error}", given=file)) from error
    return vars(module)


def _line(file: Path, error: BaseException) -> str:
    """Name the last line of the file that led to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}," if lines else ""


def _declared(file: Path, names: Mapping[str, object]) -> Sequence[Feature]:
    todo = "Write FEATURES = (Feature(...),)."
    if "FEATURES" not in names:
        loose = ", ".join(name for name, value in names.items() if isinstance(value, Feature)) or "no feature"
        raise ConfigError(explain(f"{file.name} does not define FEATURES", given=loose, todo=todo))
    found = names["FEATURES"]
    if not isinstance(found, tuple | list):
        raise ConfigError(explain(f"{file.name}: FEATURES is not a tuple", given=type(found).__name__, todo=todo))
    for position, feature in enumerate(found, start=1):
        if not isinstance(feature, Feature):
            given = f"{type(feature).__name__}: {feature!r}"[:200]
            raise ConfigError(explain(f"{file.name}: number {position} of FEATURES is not a Feature", given=given, todo=todo))
    return found


def add_own_features(
    catalogue: Catalogue,
    own: Sequence[OwnFeature],
    tables: Mapping[str, ir.Table],
    *,
    engine: QueryEngine,
    levels: Mapping[str, Sequence[str]],
) -> Catalogue:
    """Return the catalogue with one's own features at its end, each tried on tables without rows.

    Parameters
    ----------
    tables
        The workspace's checked tables.
    levels
        The levels that have features of their own, such as kinds of event.

    Raises
    ------
    ConfigError
        If a name is taken, a table, a column or an input is not there, or an expression fails or yields something else than its kind.
    """
    if not own:
        return catalogue
    _refuse_names(catalogue, own)
    extended = Catalogue((*catalogue.features, *(_with_exact_sums(declared.feature) for declared in own)))
    nobody = Spine(pa.array([], pa.string()), pa.array([], pa.timestamp("us")))
    known = KnownTables(engine, {name: engine.layer(table.limit(0)) for name, table in tables.items()}, nobody, levels=levels, views=VIEWS)
    for declared in own:
        if declared.feature.source:
            _try_measured(declared, declared.feature.source, known)
        else:
            _try_derived(declared, extended, engine)
    return extended


@dataclass(frozen=True)
class _Exact:
    """An expression whose sums do not depend on the order of the rows; equal for equal expressions, which are computed once."""

    expression: Expression

    def __call__(self, rows: ir.Table) -> ir.Value:
        return exactly(self.expression(rows))


def _with_exact_sums(feature: Feature) -> Feature:
    return replace(feature, expression=_Exact(feature.expression)) if feature.source else feature


def _refuse_names(catalogue: Catalogue, own: Sequence[OwnFeature]) -> None:
    taken = dict.fromkeys(catalogue.names, "by the built-in catalogue") | dict.fromkeys(_RESERVED, "by the matrix")
    for declared in own:
        name = declared.feature.name
        if name in taken:
            raise declared.wrong(f"has a name that is taken {taken[name]}", given=name, todo="Give it another name.")
        if not _NAME.fullmatch(name):
            raise declared.wrong(
                "has a name that columns cannot have", given=name, allowed="small letters, digits and _, such as exports_28d"
            )
        taken[name] = f"in {declared.file.name}"


def _try_measured(own: OwnFeature, window: Window, known: KnownTables) -> None:
    """Compute a measured feature on no rows at all."""
    table = MADE_FROM.get(window.table, window.table)
    if table not in known:
        raise own.wrong(f"needs the table {window.table}, which is not there", allowed=", ".join([*known.tables, *known.views]))
    columns = set(known.tables[table].columns) if table == window.table else set(own.feature.needs)
    missing = sorted({*own.feature.needs, *window.by, *filter(None, [window.each])} - columns - {"day", "week", "weekday"})
    if missing:
        raise own.wrong(f"needs the column {missing[0]} of {table}, which is not there", allowed=", ".join(sorted(columns)))
    if window.each and own.feature.level not in known.levels.get(window.each, ()):
        todo = f"Write an expression with where=rows.{window.each} == ... over a window without each."
        raise own.wrong(f"is about a level of {window.each} that has no features", given=own.feature.level, todo=todo)
    rows = summed(next(known.slices(window)), window)
    value = _value(own, rows)
    if not value.op().shape.is_scalar():
        todo = "End it with .sum(), .count(), .max(), ...; leave rows out with where=."
        raise own.wrong("does not make one value of the window's rows", given=f"a {type(value).__name__}", todo=todo)
    _compute(own, known.engine, rows.group_by("row").agg(value=value))


def _try_derived(own: OwnFeature, catalogue: Catalogue, engine: QueryEngine) -> None:
    """Compute a derived feature on no rows at all; its formula sees its inputs and no other feature."""
    unknown = [name for name in own.feature.inputs if name not in catalogue]
    if unknown:
        todo = nearest(unknown[0], catalogue.names) or "Look at `renewcast reference`."
        raise own.wrong(f"needs the feature {unknown[0]}, which is not there", todo=todo)
    inputs = [catalogue.feature(name) for name in own.feature.inputs]
    confidential = [feature for feature in inputs if feature.sensitivity != "shared"]
    if own.feature.sensitivity == "shared" and confidential:
        kind = confidential[0].sensitivity
        raise own.wrong(f"would show {confidential[0].name}, which is the {kind}'s", todo=f'Write sensitivity="{kind}".')
    types = _COLUMNS_OF_A_ROW | {feature.name: pa.string() if feature.kind == "category" else pa.float64() for feature in inputs}
    rows = engine.hold(pa.schema(types).empty_table(), name="no_rows")
    _compute(own, engine, rows.select(value=_value(own, rows)))


def _value(own: OwnFeature, rows: ir.Table) -> ir.Value:
    try:
        value = own.feature.expression(rows)
    except Exception as error:  # what a user's expression raises may be anything
        if isinstance(error, AttributeError) and isinstance(error.obj, ir.Table):
            what = f"needs the column {error.name}, which is not there"
            raise own.wrong(what, allowed=", ".join(sorted(rows.columns)), todo=nearest(str(error.name), rows.columns)) from error
        raise own.wrong(f"cannot be computed{_line(own.file, error)}: {type(error).__name__}: {error}", allowed=_columns(rows)) from error
    if not isinstance(value, ir.Value):
        raise own.wrong("has an expression that is none", given=f"{type(value).__name__}: {value!r}", allowed="an expression on its rows")
    fits = value.type().is_string() if own.feature.kind == "category" else value.type().is_numeric() or value.type().is_boolean()
    if not fits:
        raise own.wrong(f"is a {own.feature.kind}, but yields something else", given=value.type(), allowed=_ALLOWED[own.feature.kind])
    return value


_ALLOWED = {"number": "a number or a truth value", "category": "a text"}


def _columns(rows: ir.Table) -> str:
    return f"columns {', '.join(sorted(rows.columns))}"


def _compute(own: OwnFeature, engine: QueryEngine, query: ir.Table) -> None:
    try:
        engine.to_arrow(query)
    except engine.refusal as error:
        raise own.wrong(f"cannot be computed: {error}") from error


def with_inputs(feature: Feature, catalogue: Catalogue) -> Catalogue:
    """Return the features of a catalogue that it takes to compute one of them, itself last."""
    needed: dict[str, Feature] = {}

    def add(one: Feature) -> None:
        for name in one.inputs:
            add(catalogue.feature(name))
        needed[one.name] = one

    add(feature)
    return Catalogue(tuple(needed.values()))


def build_matrix_of_own(
    known: KnownTables, spine: Spine, catalogue: Catalogue, own: Sequence[OwnFeature], *, on_progress: Progress = silent
) -> pa.Table:
    """Compute every feature as `build_matrix` does, and name the own feature that cannot be computed on the rows that there are.

    Raises
    ------
    ConfigError
        If one's own feature fails, or is infinite anywhere.
    """
    try:
        matrix = build_matrix(known, spine, catalogue, on_progress=on_progress)
    except known.engine.refusal:
        for declared in own:
            _name_failure(declared, known, lambda feature: build_matrix(known, spine, with_inputs(feature, catalogue)))
        raise
    for declared in own:
        refuse_infinite(declared, matrix)
    return matrix


def _name_failure(own: OwnFeature, known: KnownTables, compute: Callable[[Feature], object]) -> None:
    try:
        compute(own.feature)
    except known.engine.refusal as error:
        raise own.wrong(f"cannot be computed: {error}", todo="Read text as a number with .try_cast('float64').") from error


def refuse_infinite(own: OwnFeature, matrix: pa.Table) -> None:
    """Stop if one's own feature is infinite anywhere.

    Raises
    ------
    ConfigError
        If it is, with the number of rows.
    """
    if own.feature.kind == "number":
        infinite = int(np.isinf(matrix[own.feature.name].to_numpy()).sum())
        if infinite:
            todo = "Divide by (...).nullif(0): what has nothing below the line is then missing."
            raise own.wrong(f"is infinite in {infinite:,} of {len(matrix):,} rows", todo=todo)
