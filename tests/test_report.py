import json

import pytest

from features.errors import WorkspaceError
from features.findings import Audit, Finding
from training.baseline import BaselineResult
from training.breakdown import Level
from training.evaluation import Estimate
from training.judgement import Block, Importance, Judgement
from training.reliability import CurveBin
from training.report import CURRENT, REPORT, RowCounts, SkippedTarget, TrainedTarget, TrainingSummary, read_report
from training.stability import Stability

COUNTS = RowCounts(
    rows=900,
    positives=90,
    base_rate=0.1,
    train_rows=500,
    train_positives=50,
    test_rows=300,
    test_positives=30,
    test_from="2024-01-01T00:00:00",
    test_to="2024-03-01T00:00:00",
)
JUDGEMENT = Judgement(
    metrics={
        "auc": Estimate(0.8, 0.75, 0.85),
        "lift_top_10": Estimate(3.24, 2.0, 4.0),
        "arr_caught_top_10": Estimate(0.4, None, None),
    },
    baselines={"recency": BaselineResult("days_since_last_event", Estimate(0.7, 0.65, 0.75), Estimate(0.1, 0.05, 0.15))},
    best_baseline="recency",
    slices={"segment": (Level("small", 200, 20, {"auc": Estimate(0.7, 0.6, 0.8)}), Level("large", 100, 2, None, "too few"))},
    weak_spots=(),
    calibration_curve=(CurveBin(rows=300, positives=30, probability=0.11, frequency=0.1, low=0.07, high=0.14),),
    blocks=(
        Block(
            test_from="2024-01-01T00:00:00",
            test_to="2024-03-01T00:00:00",
            trained_until="2023-10-01T00:00:00",
            train_rows=500,
            rows=300,
            positives=30,
            metrics=None,
        ),
    ),
    importance=(Importance("arr", "commercial", "ARR", 0.4),),
    renewal=None,
    stability=Stability(models=2, rows=9, rank_correlation=0.9, same_feature=0.8, same_family=0.9, top_three_overlap=0.7, families={}),
    ablation=(),
    audit=Audit(
        (Finding(probe="p", severity="look at", subject="seats", message="always 5", todo="Look.", examples=("row 3",)),), {"p": "it"}
    ),
)
TRAINED = TrainedTarget(
    target="churn",
    counts=COUNTS,
    judgement=JUDGEMENT,
    parameters={"rounds": 40},
    calibrator="platt",
    package_hash="ab",
    role="champion",
    decision="It is the first.",
    version="1",
    search=None,
    notes=("The history is short.",),
)
SKIPPED = SkippedTarget("expansion", "too few positives: 3 of 900\n  allowed: at least 50")


def summary(folder, *targets):
    return TrainingSummary(
        run="r1",
        folder=folder / "r1",
        made_at="2024-05-01T00:00:00+00:00",
        code_version="1.0",
        data_fingerprint="ff",
        features=8,
        horizon_days=90,
        lead_days=0,
        targets=targets,
    )


def test_verdicts_are_one_line_that_says_what_the_model_is_worth():
    assert TRAINED.verdict == (
        "churn: AUC 0.800 (0.750 to 0.850) against 0.700 of recency; "
        "the tenth of the accounts with the highest scores holds 3.2 times the average share; champion."
    )
    assert SKIPPED.verdict == "expansion: not trained; too few positives: 3 of 900."


def test_the_report_is_read_as_it_was_written(tmp_path):
    written = summary(tmp_path, TRAINED, SKIPPED).to_json()
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / REPORT).write_text(json.dumps(written, allow_nan=False))
    (tmp_path / CURRENT).write_text("r1")
    report = read_report(tmp_path)
    assert report == json.loads(json.dumps(written))
    churn, expansion = report["targets"]["churn"], report["targets"]["expansion"]
    assert churn["metrics"]["auc"] == {"value": 0.8, "low": 0.75, "high": 0.85}
    assert churn["baselines"]["recency"]["feature"] == "days_since_last_event"
    assert churn["baselines"]["recency"]["gain"] == {"value": 0.1, "low": 0.05, "high": 0.15}
    assert churn["slices"]["segment"]["large"] == {"name": "large", "rows": 100, "positives": 2, "metrics": None, "reason": "too few"}
    assert churn["folds"][0]["trained_until"] == "2023-10-01T00:00:00"
    assert (churn["test_positives"], churn["notes"], churn["status"]) == (30, ["The history is short."], "trained")
    assert (expansion["status"], expansion["reason"]) == ("skipped", SKIPPED.reason)


@pytest.mark.parametrize("state", ["nothing", "a run that is gone"])
def test_without_a_report_it_says_what_to_run(tmp_path, state):
    if state != "nothing":
        (tmp_path / CURRENT).write_text("r0")
    with pytest.raises(WorkspaceError, match="renewcast train"):
        read_report(tmp_path)
