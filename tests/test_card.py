import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_figures import PART
from training.card import render_card, render_history
from training.versions import Promotion

WHOLE = PART | {
    "verdict": "churn: AUC 0.810.",
    "decision": "It is the first model that beats all baselines by more than its interval.",
    "role": "champion",
    "version": "7",
    "rows": 30289,
    "positives": 1072,
    "base_rate": 0.0354,
    "train_rows": 18044,
    "train_positives": 664,
    "test_rows": 7657,
    "test_positives": 234,
    "test_from": "2025-05-01T00:00:00",
    "test_to": "2025-09-01T00:00:00",
    "parameters": {"num_leaves": 15, "rounds": 76},
    "calibrator": "beta",
    "package_hash": "ab" * 32,
    "notes": ["The training period is short."],
    "weak_spots": [
        {"slice": "segment", "level": "small", "measure": "auc", "found": {"value": 0.6, "low": 0.5, "high": 0.7}, "against": 0.81},
        {
            "slice": "quarter",
            "level": "2025 Q1",
            "measure": "ece",
            "found": {"value": 0.0153, "low": 0.01, "high": 0.02},
            "against": 0.0146,
        },
    ],
    "audit": {
        "findings": [
            {"severity": "leak", "subject": "seats | end", "message": "It knows the end.\nAlways.", "todo": "Leave it out.", "probe": "x"}
        ],
        "probes": {"a feature that is too good alone": "...", "columns of label time": "..."},
    },
}
TRAINING = {
    "book": "Small book",
    "run": "20260101T000000-aaaa",
    "made_at": "2026-01-01T10:11:12+00:00",
    "code_version": "0.2.0",
    "data_fingerprint": "cd" * 32,
    "features": 213,
    "horizon_days": 90,
    "lead_days": 0,
}


@pytest.fixture(scope="module")
def card():
    return render_card(WHOLE, target="churn", training=TRAINING)


def chapters(card):
    parts = re.split(r"^## (.*)\n", card, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_chapter_is_there_in_order(card):
    assert list(chapters(card)) == [
        "What it answers",
        "What it is for",
        "How good it is",
        "Against what is easier",
        "For whom",
        "What was said, and what happened",
        "The backtest",
        "What moves the scores",
        "How sure the reasons are",
        "What each family of features adds",
        "The audit for leaks",
        "The data",
        "How it was made",
        "What to keep in mind",
    ]


@pytest.mark.parametrize(
    ("chapter", "said"),
    [
        ("What it answers", "Will this customer, active today, have left within 90 days?"),
        ("What it answers", "3.5 % of the labelled rows"),
        ("How good it is", "7,657 rows of 2025-05-01 to 2025-09-01, 234 of them with the outcome"),
        ("How good it is", "| AUC | 0.810 (0.760 to 0.860) |"),
        ("How good it is", "| Found in the top 10 % | 41 % (37 % to 45 %) |"),
        ("Against what is easier", "| recency | `days_since_last_event` | 0.600 (0.550 to 0.650) | +0.210 (+0.160 to +0.260) |"),
        ("Against what is easier", "| logistic regression |  | 0.800 (0.750 to 0.850) | +0.010 (−0.040 to +0.060) |"),
        ("For whom", "**Weak: segment small.** The model orders them less well: AUC 0.600 (0.500 to 0.700), against 0.810."),
        ("For whom", "Calibration error (ECE) 0.0153 (0.0100 to 0.0200), against 0.0146."),
        ("For whom", "| segment | small | 20 | 1 | too few to be measured: 1 account has a positive row |"),
        ("What was said, and what happened", "| 30.0 % | 40.0 % | 20.0 % to 80.0 % | 100 |"),
        ("The backtest", "| 2025-03-01 to 2025-04-01 | - | 3,000 | 100 | 0.700 (0.650 to 0.750) |"),
        ("How sure the reasons are", "4 models that learnt from other draws of the accounts"),
        ("The audit for leaks", "- **Leak: seats | end.** It knows the end."),
        ("The audit for leaks", "Looked for: a feature that is too good alone; columns of label time."),
        ("How it was made", "| parameters | num_leaves 15, rounds 76 |"),
        ("How it was made", "| recipes tried | 4, 1 of them given up early; number 3 was taken; the best is better by 0.10000"),
        ("How it was made", "| made | 2026-01-01 10:11 |"),
        ("What to keep in mind", "- The training period is short."),
    ],
)
def test_a_chapter_says(card, chapter, said):
    assert said in chapters(card)[chapter]


def test_it_begins_with_what_was_decided(card):
    head = card.split("## ")[0]
    assert head.startswith("# Model card: churn\n\n**churn: AUC 0.810.**")
    assert "Version 7, registered as champion when it was trained. It is the first model" in head


def test_the_question_is_the_target_s():
    expansion = render_card(WHOLE, target="expansion", training=TRAINING | {"lead_days": 14})
    assert "Will this customer stay and grow within 90 days, counted from 14 days ahead?" in expansion


@given(st.sets(st.sampled_from(sorted(WHOLE))), st.sets(st.sampled_from(sorted(TRAINING))))
def test_what_the_report_does_not_have_is_left_out(missing, unknown):
    part = {name: value for name, value in WHOLE.items() if name not in missing}
    if "test_rows" not in part or "test_from" not in part:
        part = {name: value for name, value in part.items() if not name.startswith("test_")}
    if {"rows", "positives"} - set(part):
        part = {name: value for name, value in part.items() if name not in {"rows", "positives"}}
    if {"train_rows", "train_positives"} - set(part):
        part = {name: value for name, value in part.items() if not name.startswith("train_")}
    if {"test_rows", "test_positives", "test_to"} - set(part):
        part = {name: value for name, value in part.items() if not name.startswith("test_")}
    card = render_card(part, target="churn", training={name: value for name, value in TRAINING.items() if name not in unknown})
    assert all(text.strip() for text in chapters(card).values())
    assert "None" not in card


def test_tables_are_whole(card):
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_history_tells_when_and_why():
    first = Promotion(version="1", at=datetime(2026, 1, 1), way="training", reason="It is the first.", replaced=None)
    second = Promotion(version="2", at=datetime(2026, 2, 1, 12, 30), way="hand", reason="Sales | asked\nfor it.", replaced="1")
    lines = render_history([first, second]).splitlines()
    assert lines[0] == "## Which versions were in use"
    assert lines[-3:-1] == [
        "| 2026-02-01 12:30 | 2 | 1 | hand | Sales \\| asked for it. |",
        "| 2026-01-01 00:00 | 1 | - | training | It is the first. |",
    ]
