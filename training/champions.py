"""Which version of a model is used: promotion by comparison or by hand, the way back, and the record of both.

The champion scores accounts. Its files are copied into the workspace in the same step in which the registry's alias moves, so that the
next scores are its own.
"""

from dataclasses import dataclass
from typing import NoReturn

from features.catalogue import read_catalogue
from features.errors import ConfigError, NotEnoughDataError, PackageError, RegistryError, WorkspaceError, explain
from features.feature import Target
from features.ledger import replace_folder
from features.snapshot_files import snapshot_columns
from features.workspace import Workspace
from training import versions
from training.copies import champion_folder
from training.dataset import Dataset, load_dataset, require_columns
from training.evaluation import Estimate
from training.package import Package
from training.pipeline import label_window
from training.promotion import Comparison, Decision, Incumbent, decide, face_champion
from training.registry import Registry, workspace_registry
from training.splits import ForwardSplit, LabelWindow, forward_split
from training.versions import Champion, Promotion, Version, Way, model_name

__all__ = ["Change", "history", "list_versions", "promote", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What came of an attempt to change a target's champion.

    Parameters
    ----------
    version
        The version that was to become champion.
    moved
        Whether it did.
    champion
        The version that is champion now.
    replaced
        The one before, None if there was none; the champion itself if nothing moved.
    reason
        Why, in a sentence.
    """

    target: Target
    version: str
    moved: bool
    champion: str | None
    replaced: str | None
    reason: str


def promote(
    workspace: Workspace, target: Target, *, version: str | None = None, reason: str | None = None, tracking_uri: str | None = None
) -> Change:
    """Make a version the champion: because it is better, or by hand with a reason that is recorded.

    Without a reason a version becomes champion if it beats every baseline by more than its interval, the audit found no leak in it, and it
    beats the champion on the same rows of its backtest, each scored by what either model knew at the time; the answer says why it did
    or did not.

    Parameters
    ----------
    version
        The version to promote; the challenger if None.
    reason
        Why it shall be champion whatever the comparison says.
    tracking_uri
        Address of an MLflow server, in place of the config's.

    Raises
    ------
    RegistryError
        If there is no such version, or MLflow does not answer.
    PackageError
        If the version's files are damaged, or it reads features that the workspace does not have.
    ConfigError
        If the reason is empty.
    """
    with workspace.lock("renewcast promote"):
        registry = workspace_registry(workspace, tracking_uri=tracking_uri)
        known = {alias: found.version for found in registry.versions(target) for alias in found.aliases}
        wanted = version or known.get("challenger") or _no_challenger(target, known.get("champion"))
        if wanted == known.get("champion"):
            return Change(
                target=target, version=wanted, moved=False, champion=wanted, replaced=wanted, reason="It is the champion already."
            )
        candidate = registry.load(target, wanted)
        _require_fit(workspace, candidate.shipped)
        if reason is not None:
            return _install(workspace, registry, target, candidate, way="hand", reason=_given(reason))
        decision = _compare(workspace, registry, target, candidate)
        if decision.role == "champion":
            return _install(workspace, registry, target, candidate, way="comparison", reason=decision.reason)
        return _unmoved(target, wanted, known.get("champion"), decision.reason)


def rollback(workspace: Workspace, target: Target, *, reason: str, tracking_uri: str | None = None) -> Change:
    """Make the version before the champion again, and record why; a second rollback goes back further.

    Raises
    ------
    RegistryError
        If there is no version to go back to, or MLflow does not answer.
    PackageError
        If that version's files are damaged, or it reads features that the workspace does not have.
    ConfigError
        If the reason is empty.
    """
    with workspace.lock("renewcast rollback"):
        registry = workspace_registry(workspace, tracking_uri=tracking_uri)
        known = {alias: found.version for found in registry.versions(target) for alias in found.aliases}
        if "previous" not in known:
            todo = "Name the version that shall be used: renewcast promote TARGET --version N --reason TEXT. `renewcast models` lists them."
            given = f"champion: version {known['champion']}" if "champion" in known else "no champion"
            raise RegistryError(explain(f"{model_name(target)} has no champion to go back to", given=given, todo=todo))
        candidate = registry.load(target, known["previous"])
        _require_fit(workspace, candidate.shipped)
        return _install(workspace, registry, target, candidate, way="rollback", reason=_given(reason))


def history(workspace: Workspace, target: Target, *, tracking_uri: str | None = None) -> tuple[Promotion, ...]:
    """List the changes of the target's champion: which version, when, why and by which way; the earliest first.

    Raises
    ------
    RegistryError
        If MLflow does not answer.
    """
    return versions.history(list_versions(workspace, target, tracking_uri=tracking_uri))


def list_versions(workspace: Workspace, target: Target, *, tracking_uri: str | None = None) -> tuple[Version, ...]:
    """List the target's registered versions, the latest first.

    Raises
    ------
    RegistryError
        If MLflow does not answer.
    """
    return workspace_registry(workspace, tracking_uri=tracking_uri).versions(target)


def _install(workspace: Workspace, registry: Registry, target: Target, candidate: Champion, *, way: Way, reason: str) -> Change:
    """Move the alias and the local copy together: where one fails, the other stays."""
    place = champion_folder(workspace, target)
    try:
        with replace_folder(place) as folder:
            candidate.shipped.save(folder)
            promotion = registry.move_champion(target, candidate.version, way=way, reason=reason)
    except OSError as error:
        todo = "Make room on the disk and give yourself the right to write there. The champion is what it was."
        raise WorkspaceError(explain(f"the model cannot be copied into the workspace: {error.strerror}", given=place, todo=todo)) from error
    return Change(
        target=target, version=candidate.version, moved=True, champion=candidate.version, replaced=promotion.replaced, reason=reason
    )


def _unmoved(target: Target, version: str, champion: str | None, reason: str) -> Change:
    return Change(target=target, version=version, moved=False, champion=champion, replaced=champion, reason=reason)


def _compare(workspace: Workspace, registry: Registry, target: Target, candidate: Champion) -> Decision:
    """Decide about a version as its training would decide today."""
    judged = registry.report(target, candidate.version)
    if not candidate.periods or "baselines" not in judged or "audit" not in judged:
        return Decision("challenger", "It was made by an earlier version, which did not record all that is compared. Promote by hand.")
    gains = {name: Estimate(**baseline["gain"]) for name, baseline in judged["baselines"].items()}
    leaks = [f"{found['subject']}: {found['message']}" for found in judged["audit"]["findings"] if found["severity"] == "leak"]
    return decide(gains, leaks=leaks, incumbent=_incumbent(workspace, registry, target, candidate))


def _incumbent(workspace: Workspace, registry: Registry, target: Target, candidate: Champion) -> Incumbent | None:
    try:
        champion = registry.champion(target)
    except PackageError as error:
        return Incumbent(unfit=str(error).splitlines()[0])
    if champion is None:
        return None
    window = label_window(workspace.config)
    data = load_dataset(workspace.snapshots, target, read_catalogue(workspace.snapshots / "catalogue.json"))
    try:
        splits = _splits(candidate, data, window)
    except NotEnoughDataError:
        return Incumbent(comparison=Comparison(None, 0, 0, "the rows that it was judged on are no longer in the snapshots"))
    old, new = ((*model.folds, model.shipped) for model in (champion, candidate))
    return face_champion(old, new, data, splits, window, seed=workspace.config.training.seed)


def _splits(candidate: Champion, data: Dataset, window: LabelWindow) -> tuple[ForwardSplit, ...]:
    return tuple(forward_split(data.cutoff, window, test_from=period.first, test_to=period.last) for period in candidate.periods)


def _require_fit(workspace: Workspace, package: Package) -> None:
    """See that the workspace has the features that a package reads, as far as they were computed."""
    snapshot = workspace.snapshots / "features.parquet"
    if snapshot.exists():
        require_columns(snapshot_columns(snapshot), package.features)


def _given(reason: str) -> str:
    if not reason.strip():
        raise ConfigError(explain("the reason is empty", todo="Say in a sentence why, for those who will ask later."))
    return " ".join(reason.split())


def _no_challenger(target: Target, champion: str | None) -> NoReturn:
    given = f"champion: version {champion}" if champion else "no champion"
    todo = "Name a version; `renewcast models` lists them. `renewcast train` makes a new one."
    raise RegistryError(explain(f"{model_name(target)} has no challenger to promote", given=given, todo=todo))
