"""How the service and its scores are at this moment, for Prometheus: as old as what, drifted how far, waiting for what.

The ages are computed from the wall clock, since cutoffs are; if it jumps, they jump with it and nothing else does.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.answers.live import LiveScores
from serving.operations.health_checks import Health
from serving.scores.drift import THRESHOLDS, Drift
from serving.scores.scoring import ScoreSet

__all__ = ["drift_gauges", "health_gauges", "journal_gauges", "live_gauges", "score_gauges"]


def live_gauges(live: LiveScores) -> Iterator[Metric]:
    """Yield how often new scores were taken and refused since the worker that answers has started."""
    reloads = CounterMetricFamily("renewcast_reloads", "Score sets that this worker read, by what became of them.", labels=["outcome"])
    reloads.add_metric(["taken"], live.loaded)
    reloads.add_metric(["refused"], live.refused)
    yield reloads


def score_gauges(score_set: ScoreSet, now: datetime) -> Iterator[Metric]:
    """Yield how old the scores are, and the data behind them, at an instant (naive, UTC)."""
    manifest = score_set.manifest
    yield _gauge("renewcast_score_set_age_seconds", "Since the book was scored.", _seconds(manifest.scored_at, now))
    yield _gauge("renewcast_cutoff_age_seconds", "Since the instant that the scores are as of.", _seconds(manifest.cutoff, now))
    latest = {source.table: _seconds(source.latest, now) for source in manifest.sources if source.latest is not None}
    yield _gauge_by("renewcast_source_age_seconds", "Since the last row of a table became known.", "table", latest)
    silent = {source.table: float(source.silent) for source in manifest.sources}
    yield _gauge_by("renewcast_source_silent", "1 if a table has been silent for so long that scores lean on old data.", "table", silent)


def drift_gauges(drift: Drift) -> Iterator[Metric]:
    """Yield how far the scored book has moved from the rows that the models were trained on, by family of features."""
    largest = {family: found.largest for family, found in drift.families.items()}
    yield _gauge_by("renewcast_drift_largest", "The largest population stability index of a family's features.", "family", largest)
    moved = GaugeMetricFamily("renewcast_drift_features", "Features whose index is above a threshold.", labels=["family", "above"])
    for family, found in drift.families.items():
        moved.add_metric([family, str(THRESHOLDS[0])], found.moved)
        moved.add_metric([family, str(THRESHOLDS[1])], found.moved_much)
    yield moved
    yield _gauge_by("renewcast_probability_average", "The average probability of the scored book.", "target", drift.average)
    yield _gauge_by("renewcast_probability_trained", "The share of such outcomes in the rows of the training.", "target", drift.trained)


def journal_gauges(lines: int) -> Iterator[Metric]:
    """Yield how many lines of the journal wait for the database."""
    yield _gauge("renewcast_journal_backlog_lines", "Lines of the journal that are not in the database yet, of all workers.", lines)


def health_gauges(health: Health) -> Iterator[Metric]:
    """Yield what `/readyz` says."""
    yield _gauge("renewcast_ready", "1 if the service can answer.", float(health.ready))
    good = {finding.name: float(finding.good) for finding in health.findings}
    yield _gauge_by("renewcast_check_good", "1 for each thing that is as it should be.", "check", good)


def _seconds(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauge_by(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, meaning, labels=[label])
    _fill(gauge, values.items())
    return gauge


def _fill(gauge: GaugeMetricFamily, values: Iterable[tuple[str, float]]) -> None:
    for label, value in values:
        gauge.add_metric([label], value)
