import io
import json

from rich.console import Console

from serving.commands.reporting import MEASURES, show_target
from tests.test_report import SKIPPED, TRAINED
from training.breakdown import WeakSpot
from training.evaluation import Estimate


def shown(target, **changes):
    part = json.loads(json.dumps(target.to_json())) | changes
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    for line in show_target(part):
        console.print(line)
    return " ".join(console.file.getvalue().split())


def test_a_trained_target_shows_what_it_is_worth_and_why_it_is_used():
    text = shown(TRAINED)
    assert "champion: It is the first." in text
    assert "AUC 0.800 0.750 to 0.850" in text
    assert f"{MEASURES['arr_caught_top_10']} 0.400 - to -" in text
    assert "recency 0.700 +0.100 +0.050 to +0.150" in text
    assert "judged on 300 rows, 30 of them positive, 2024-01-01 to 2024-03-01, retrained 1 times" in text
    assert "look at: seats: always 5 row 3 next: Look." in text
    assert "note: The history is short." in text


def test_weak_parts_are_named():
    spots = [
        {"slice": "segment", "level": "small [x]", "measure": "auc", "found": vars(Estimate(0.6, 0.5, 0.7)), "against": 0.8},
        {"slice": "quarter", "level": "2025 Q2", "measure": "ece", "found": vars(Estimate(0.03, 0.01, 0.05)), "against": 0.02},
    ]
    assert set(spots[0]) == set(WeakSpot.__dataclass_fields__)
    text = shown(TRAINED, weak_spots=spots)
    assert "weak: segment small [x]: AUC 0.600 (0.500 to 0.700) against 0.800 of all rows" in text
    assert "weak: quarter 2025 Q2: calibration error 0.030, by chance at most 0.020" in text


def test_a_skipped_target_says_why():
    text = shown(SKIPPED)
    assert "expansion: not trained; too few positives: 3 of 900." in text
    assert "at least 50" in text


def test_how_well_renewals_are_told_is_shown():
    assert "AUC of who lets a renewal pass 0.790 0.740 to 0.830" in shown(TRAINED, renewal={"auc": vars(Estimate(0.79, 0.74, 0.83))})
