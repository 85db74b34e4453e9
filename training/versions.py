"""What is registered for a target: the files of a model, its versions, and how one of them came to replace another.

A registered model is a folder of text, the same in every registry:

    package/            the package that scores accounts
    folds/1, 2, ...     the packages that were judged, each on the fold of the test period that it had not seen
    folds.json          those folds' test periods
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

import pandas as pd

from features.errors import PackageError, explain
from features.feature import Target
from training.evaluation import Estimate
from training.package import Package, load_package
from training.promotion import Role

__all__ = [
    "Alias",
    "Champion",
    "FoldModel",
    "Links",
    "LoggedModel",
    "Period",
    "Promotion",
    "Version",
    "Way",
    "history",
    "links_to",
    "load_files",
    "load_shipped",
    "model_name",
    "predecessor",
    "promotion_tag",
    "read_version",
    "save_files",
    "version_tags",
]

Alias = Literal["champion", "challenger", "previous"]
"""What a version may be for its target; `previous` is the champion before this one, to which a rollback goes."""

Way = Literal["training", "comparison", "hand", "rollback"]
"""How a version became champion."""

_SHIPPED, _FOLDS, _JUDGED, _PERIODS = "package", "folds", "judged", "folds.json"
"""Names in a model's folder; `judged` is where the earliest versions have the one package that was measured."""

_AUC = ("auc", "auc_low", "auc_high")
_PROMOTED_AT = "promoted/%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Period:
    """The first and the last cutoff of a test period, UTC."""

    first: datetime
    last: datetime


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldModel:
    """A package that was judged, and on what.

    Parameters
    ----------
    test_from, test_to
        The first and the last cutoff that it was judged at, UTC.
    rows, positives
        Of these cutoffs.
    metrics
        What was measured on them.
    """

    package: Package
    test_from: datetime
    test_to: datetime
    rows: int
    positives: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedModel:
    """What is logged and registered for one target.

    Parameters
    ----------
    shipped
        The package that scores.
    folds
        The packages that were judged, in the order of their test periods.
    example
        A few rows of features.
    figures
        PNG or SVG files by name, such as `calibration.png`.
    card
        The model card, in Markdown.
    decision
        Why the new version gets its role.
    report
        The target's part of the training's report.
    """

    target: Target
    shipped: Package
    folds: Sequence[FoldModel]
    example: pd.DataFrame
    parameters: Mapping[str, object]
    metrics: Mapping[str, float]
    role: Role
    decision: str
    figures: Mapping[str, bytes] = field(default_factory=dict)
    card: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Champion:
    """A registered version with its packages.

    Parameters
    ----------
    version
        Its number in the registry.
    shipped
        The package that scores.
    folds
        The packages that were judged, in the order of their test periods.
    periods
        Those test periods; empty for one of the earliest versions, which have one judged package and do not say on what.
    decision
        Why it got its role when it was trained.
    """

    version: str
    shipped: Package
    folds: tuple[Package, ...]
    periods: tuple[Period, ...]
    decision: str


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One change of a target's champion.

    Parameters
    ----------
    version
        The version that became champion.
    at
        When, UTC.
    reason
        Why, in a sentence.
    replaced
        The version that was champion before, None if there was none.
    """

    version: str
    at: datetime
    way: Way
    reason: str
    replaced: str | None


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version, without its files.

    Parameters
    ----------
    aliases
        What it is for its target now, if anything.
    made_at
        When it was registered, UTC.
    run_id
        The MLflow run that made it.
    auc
        On its test period; None for one of the earliest versions.
    promotions
        When it became champion, the earliest first.
    """

    version: str
    aliases: tuple[Alias, ...]
    made_at: datetime
    run_id: str
    decision: str
    auc: Estimate | None
    promotions: tuple[Promotion, ...]


def model_name(target: Target) -> str:
    """Return the name under which a target's models are registered."""
    return f"renewcast-{target}"


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where MLflow's own pages show a registered version, and the run that made it."""

    version: str
    run: str


def links_to(server: str, *, target: Target, version: str, experiment: str, run: str) -> Links | None:
    """Return the addresses of a version and its run on a tracking server, without any password; None for what no browser opens.

    Examples
    --------
    >>> links_to("https://ml.example.com/", target="churn", version="3", experiment="1", run="ab").version
    'https://ml.example.com/#/models/renewcast-churn/versions/3'
    >>> links_to("sqlite:///mlflow.db", target="churn", version="3", experiment="1", run="ab") is None
    True
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    place = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    return Links(version=f"{place}/#/models/{model_name(target)}/versions/{version}", run=f"{place}/#/experiments/{experiment}/runs/{run}")


def history(versions: Iterable[Version]) -> tuple[Promotion, ...]:
    """List the changes of a target's champion, the earliest first."""
    return tuple(sorted((promotion for version in versions for promotion in version.promotions), key=lambda promotion: promotion.at))


def predecessor(version: str, promotions: Sequence[Promotion]) -> str | None:
    """Return which version this one replaced when it last became champion other than by a rollback.

    Examples
    --------
    >>> at = datetime(2026, 1, 1)
    >>> first = Promotion(version="1", at=at, way="training", reason="", replaced=None)
    >>> second = Promotion(version="2", at=at, way="hand", reason="", replaced="1")
    >>> back = Promotion(version="1", at=at, way="rollback", reason="", replaced="2")
    >>> predecessor("2", [first, second, back]), predecessor("1", [first, second, back])
    ('1', None)
    """
    return next((found.replaced for found in reversed(promotions) if found.version == version and found.way != "rollback"), None)


def version_tags(model: LoggedModel) -> dict[str, str]:
    """Return the tags with which a model is registered."""
    tags = {"decision": model.decision, "data_fingerprint": model.shipped.data_fingerprint, "code_version": model.shipped.code_version}
    return tags | {name: repr(float(model.metrics[name])) for name in _AUC if name in model.metrics}


def read_version(version: str, tags: Mapping[str, str], *, made_at: datetime, run_id: str, aliases: Mapping[str, str]) -> Version:
    """Compose what is known of a version from its tags.

    Parameters
    ----------
    aliases
        The target's aliases, and the version that each is on.
    """
    measured = {bound: float(tags[bound]) if bound in tags else None for bound in _AUC}
    return Version(
        version=version,
        aliases=tuple(alias for alias in get_args(Alias) if aliases.get(alias) == version),
        made_at=made_at,
        run_id=run_id,
        decision=tags.get("decision", ""),
        auc=None if measured["auc"] is None else Estimate(measured["auc"], measured["auc_low"], measured["auc_high"]),
        promotions=_read_promotions(version, tags),
    )


def promotion_tag(promotion: Promotion) -> tuple[str, str]:
    """Return the tag, name and value, by which a version records that it became champion."""
    facts = {"way": promotion.way, "reason": promotion.reason, "replaced": promotion.replaced}
    return f"{promotion.at:{_PROMOTED_AT}}", json.dumps(facts)


def _read_promotions(version: str, tags: Mapping[str, str]) -> tuple[Promotion, ...]:
    records = sorted((name, json.loads(value)) for name, value in tags.items() if name.startswith("promoted/"))
    return tuple(
        Promotion(
            version=version, at=datetime.strptime(name, _PROMOTED_AT), way=facts["way"], reason=facts["reason"], replaced=facts["replaced"]
        )
        for name, facts in records
    )


def save_files(model: LoggedModel, folder: Path) -> None:
    """Write a model's packages into a folder, which is made if it is not there."""
    model.shipped.save(folder / _SHIPPED)
    for number, fold in enumerate(model.folds, start=1):
        fold.package.save(folder / _FOLDS / str(number))
    periods = [{"test_from": fold.test_from.isoformat(), "test_to": fold.test_to.isoformat()} for fold in model.folds]
    (folder / _PERIODS).write_text(json.dumps(periods, indent=1), encoding="utf-8")


def load_files(folder: Path, *, version: str, decision: str) -> Champion:
    """Read a model's packages.

    Raises
    ------
    PackageError
        If one is missing or damaged.
    """
    periods = _read_periods(folder / _PERIODS)
    folds = [folder / _FOLDS / str(number) for number, _ in enumerate(periods, start=1)] or [folder / _JUDGED]
    return Champion(
        version=version,
        shipped=load_shipped(folder),
        folds=tuple(load_package(fold) for fold in folds),
        periods=periods,
        decision=decision,
    )


def load_shipped(folder: Path) -> Package:
    """Read the package that scores.

    Raises
    ------
    PackageError
        If it is missing or damaged.
    """
    return load_package(folder / _SHIPPED)


def _read_periods(file: Path) -> tuple[Period, ...]:
    if not file.exists():
        return ()
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return tuple(Period(datetime.fromisoformat(fold["test_from"]), datetime.fromisoformat(fold["test_to"])) for fold in read)
    except (KeyError, TypeError, ValueError) as error:
        todo = "Fetch it again from the registry, or run `renewcast train` again."
        raise PackageError(explain("the model's list of folds is damaged", given=file, todo=todo)) from error
