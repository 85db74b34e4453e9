"""What is drawn: the right numbers in the right places, no word cut off, the same bytes each time."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from training.canvas import ACCENT, MODEL, Mark, render, sheet, show_rows
from training.figures import draw_baselines, draw_calibration, draw_capacity, draw_folds, draw_gain, draw_retention, draw_roc, draw_slices
from training.gallery import draw_report, draw_scores
from training.model_figures import draw_ablation, draw_importance, draw_search, draw_stability
from training.phrases import percent

LONG = "a segment with a name that somebody thought about for a long time"


def estimate(value, half=0.05):
    return {"value": value, "low": value - half, "high": value + half}


METRICS = {"auc": estimate(0.81), "ece": estimate(0.007, 0.003)} | {
    f"{kind}_top_{capacity}": estimate(value, 0.1 * value)
    for kind in ("recall", "arr_caught", "lift")
    for capacity, value in ((5, 0.28), (10, 0.41), (20, 0.62))
}
CURVE = [
    {"rows": 100, "positives": 2, "probability": said, "frequency": happened, "low": happened / 2, "high": 2 * happened}
    for said, happened in ((0.002, 0.001), (0.01, 0.02), (0.3, 0.4))
]
SLICES = {
    "segment": {
        LONG: {"rows": 900, "positives": 40, "metrics": {"auc": estimate(0.7, 0.02)}, "reason": ""},
        "enterprise": {"rows": 1200, "positives": 1234, "metrics": {"auc": estimate(0.8)}, "reason": ""},
        "small": {"rows": 20, "positives": 1, "metrics": None, "reason": "too few to be measured: 1 account has a positive row"},
    },
    "quarter": {"2025 Q1": {"rows": 9, "positives": 40, "metrics": {"auc": {"value": 0.85, "low": None, "high": None}}, "reason": ""}},
}
BASELINES = {
    "recency": {"feature": "days_since_last_event", "auc": estimate(0.6), "gain": estimate(0.21)},
    "logistic regression": {"feature": None, "auc": estimate(0.8), "gain": estimate(0.01)},
    "vendor's health score": {"feature": "health", "auc": {"value": 0.5, "low": None, "high": None}, "gain": estimate(0.3)},
}
FOLDS = [
    {
        "test_from": f"2025-0{month}-01T00:00:00",
        "test_to": f"2025-0{month + 1}-01T00:00:00",
        "rows": 3000,
        "positives": 100,
        "metrics": metrics,
    }
    for month, metrics in ((1, {"auc": estimate(0.8)}), (3, {"auc": estimate(0.7)}), (5, None))
]
IMPORTANCE = [
    {"feature": f"feature_{number}_of_a_rather_long_name_28d", "family": "commercial", "meaning": "", "mean_abs_part": 0.5 / (number + 1)}
    for number in range(40)
]
FAMILIES = ["commercial", "engagement", "usage", "outcomes"]
STABILITY = {
    "models": 4,
    "rows": 300,
    "rank_correlation": 0.71,
    "same_feature": 0.5,
    "same_family": 0.63,
    "top_three_overlap": 0.4,
    "families": {name: {"mean": 0.3, "lowest": 0.2, "highest": 0.5} for name in FAMILIES},
}
ABLATION = [{"family": name, "features": number, "auc": estimate(0.01, 0.02)} for number, name in enumerate(FAMILIES, start=1)]
SEARCH = {
    "trials": [{"parameters": {}, "losses": [], "loss": loss, "rounds": 9} for loss in (0.3, None, 0.2, 0.25)],
    "best": 2,
    "gain": 0.1,
    "error": 0.02,
}
PART = {
    "status": "trained",
    "metrics": METRICS,
    "calibration_curve": CURVE,
    "slices": SLICES,
    "baselines": BASELINES,
    "folds": FOLDS,
    "importance": IMPORTANCE,
    "stability": STABILITY,
    "ablation": ABLATION,
    "search": SEARCH,
}
MONTHS = [datetime(2025, month, 1) for month in range(1, 13)]


@pytest.fixture(scope="module")
def held_out():
    rng = np.random.default_rng(0)
    probability = rng.beta(1, 12, 900)
    accounts = [f"a{number % 300}" for number in range(900)]
    return pd.DataFrame({"account_id": accounts, "target": (rng.random(900) < probability).astype(float), "probability": probability})


def draw_all(held_out):
    happened, probability, accounts = (held_out[name].to_numpy() for name in ("target", "probability", "account_id"))
    fan = {name: [1.0 + 0.01 * step for step in range(6)] for name in ("middle", "low_80", "high_80", "low_95", "high_95")}
    return {
        "calibration": draw_calibration(CURVE, target="churn", ece=0.007),
        "capacity": draw_capacity(METRICS, target="churn"),
        "slices": draw_slices(SLICES, METRICS["auc"], target="contraction"),
        "baselines": draw_baselines(BASELINES, METRICS["auc"], target="churn"),
        "folds": draw_folds(FOLDS, METRICS["auc"], target="churn"),
        "importance": draw_importance(IMPORTANCE, target="churn"),
        "stability": draw_stability(STABILITY, target="churn"),
        "ablation": draw_ablation(ABLATION, target="churn"),
        "search": draw_search(SEARCH, target="churn"),
        "roc": draw_roc(happened, probability, name="churn", auc=METRICS["auc"]),
        "gain": draw_gain(happened, probability, accounts, name="churn", resamples=20),
        "retention": draw_retention(MONTHS[:6], [1.0, 1.02, 1.01, 1.03, 1.02, 1.04], ahead=MONTHS[6:], **fan),
    }


@pytest.fixture(scope="module")
def figures(held_out):
    return draw_all(held_out)


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def undrawn(figure):
    """Return the labels of ticks that lie outside of what is shown."""
    labels = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels |= {label for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    return labels


def test_no_word_is_cut_off_or_covers_another(figures):
    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in undrawn(figure)]
        boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in shown}
        for text, box in boxes.items():
            assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, (name, text.get_text())
            assert -1 <= box.y0 <= box.y1 <= figure.bbox.height + 1, (name, text.get_text())
        level = [(text.get_text(), box.shrunk(0.8, 0.5)) for text, box in boxes.items() if text.get_rotation() == 0]
        assert [(name, one, two) for (one, box), (two, other) in combinations(level, 2) if box.overlaps(other)] == []


def test_the_same_figure_gives_the_same_bytes(figures, held_out):
    first = {name: render(figure) for name, figure in figures.items()}
    assert all(image.startswith(b"\x89PNG") for image in first.values())
    assert all(b"matplotlib" not in image for image in first.values())
    with ThreadPoolExecutor(2) as threads:
        for again in threads.map(draw_all, [held_out, held_out]):
            assert {name: render(figure) for name, figure in again.items()} == first


def test_pyplot_is_not_touched():
    code = "import sys, training.gallery; print('matplotlib.pyplot' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def points(axes):
    return [tuple(point) for line in axes.lines if line.get_marker() == "o" for point in line.get_xydata().tolist()]


def test_calibration_shows_what_was_said_and_what_happened():
    figure = draw_calibration(CURVE, target="churn", ece=0.007)
    (axes,) = figure.axes
    assert points(axes) == [(0.002, 0.001), (0.01, 0.02), (0.3, 0.4)]
    (whiskers,) = axes.collections
    assert [tuple(path.vertices[:, 1]) for path in whiskers.get_paths()] == [(0.0005, 0.002), (0.01, 0.04), (0.2, 0.8)]
    assert axes.get_xlim() == axes.get_ylim()
    assert any("ECE: 0.007" in text for text in words(figure))


def test_slices_tell_where_the_model_is_weak_and_where_nothing_is_known():
    figure = draw_slices(SLICES, METRICS["auc"], target="churn")
    said = words(figure)
    assert "too few: 1 positive" in said
    assert "0.700 (0.680 to 0.720)  40 positives" in said
    dots = {line.get_xdata()[0]: line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())}
    assert dots == {0.7: ACCENT, 0.8: MODEL, 0.85: MODEL}


def test_a_baseline_that_is_not_beaten_is_told_apart():
    (axes,) = draw_baselines(BASELINES, METRICS["auc"], target="churn").axes
    gains = {text.get_text(): text.get_color() for text in axes.texts if "gain" in text.get_text()}
    assert gains["0.800  gain +0.010 (−0.040 to +0.060)"] == ACCENT
    assert [color for text, color in gains.items() if not text.startswith("0.800")] == ["#566371", "#566371"]


def test_capacity_leaves_out_what_is_not_known():
    some = {name: found for name, found in METRICS.items() if not name.startswith("arr")}
    assert "Share of the ARR at stake found" not in words(draw_capacity(some, target="churn"))
    assert "41 % (37 % to 45 %)  lift 0.4" in words(draw_capacity(METRICS, target="churn"))


def test_a_fold_without_measures_says_so():
    figure = draw_folds(FOLDS, METRICS["auc"], target="churn")
    assert "too few rows" in words(figure)
    assert points(figure.axes[0]) == [(0, 0.8), (1, 0.7)]


def test_the_roc_curve_is_the_scores_own(held_out):
    from sklearn.metrics import roc_auc_score

    (axes,) = draw_roc(held_out["target"].to_numpy(), held_out["probability"].to_numpy(), name="churn", auc=METRICS["auc"]).axes
    vain, found = axes.lines[1].get_data()
    assert np.trapezoid(found, vain) == pytest.approx(roc_auc_score(held_out["target"], held_out["probability"]))


def test_the_gain_at_a_capacity_is_the_share_found(held_out):
    happened, probability = held_out["target"].to_numpy(), held_out["probability"].to_numpy()
    figure = draw_gain(happened, probability, held_out["account_id"].to_numpy(), name="churn", resamples=20)
    top = np.argsort(-probability)[: len(happened) // 5]
    assert f"top 20 %: {percent(happened[top].sum() / happened.sum())}" in words(figure)


def test_the_recipe_that_was_taken_is_named():
    figure = draw_search(SEARCH, target="churn")
    assert "taken: 0.2000" in words(figure)
    assert any("4 recipes tried, 1 of them" in text for text in words(figure))
    ring = next(line for line in figure.axes[0].lines if line.get_markersize() == 10)
    assert ring.get_xydata().tolist() == [[3, 0.2]]


def test_the_report_s_figures_are_those_it_has_numbers_for(held_out):
    every = draw_report(PART, target="churn")
    assert set(every) == {f"{name}.png" for name in (
        "calibration", "capacity", "baselines", "slices", "backtest", "importance", "stability", "ablation", "search"
    )}  # fmt: skip
    older = {name: value for name, value in PART.items() if name not in {"stability", "ablation", "folds"}} | {"search": None}
    assert set(every) - set(draw_report(older, target="churn")) == {"stability.png", "ablation.png", "backtest.png", "search.png"}
    assert set(draw_report({"status": "skipped"}, target="churn")) == set()
    assert set(draw_scores(held_out, METRICS["auc"], target="churn")) == {"roc.png", "gain.png"}
    assert all(len(image) < 150_000 for image in every.values())


def test_a_value_without_interval_is_a_dot():
    _, axes = sheet("title", "subtitle", height=1.0)
    show_rows(axes, [Mark("all", 0.5), Mark("none", None, note="too few")])
    assert [line.get_linestyle() for line in axes.lines] == ["None"]
    assert points(axes) == [(0.5, 0.0)]
