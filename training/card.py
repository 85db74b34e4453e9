"""The model card: what a model is, for whom it is good, how that was found out, and what it must not be used for.

The chapters are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, in the order in which somebody asks who has to
decide whether to rely on a score. All numbers come from the target's part of a training's report; a chapter for which the report has
none is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from features.feature import Target
from training.phrases import Json, Show, estimate, four_digits, number_of, percent, tenths, three_digits, two_digits, with_sign
from training.versions import Promotion

__all__ = ["render_card", "render_history"]

Lines = Iterator[str]

_QUESTIONS: Mapping[Target, str] = {
    "churn": "Will this customer, active today, have left {when}?",
    "contraction": "Will this customer stay, but shrink {when}?",
    "expansion": "Will this customer stay and grow {when}?",
}

_USES = (
    "To decide whom to look at first: the scores order a book, and say how likely the outcome is.",
    "To weigh a book: probabilities may be added up, over groups for which the calibration below holds.",
    "To begin a conversation: the reasons say what the model has seen go together.",
)

_MISUSES = (
    "Causes: a reason is no effect. What a change would do takes a trial in which chance decides who gets it.",
    "Decisions about persons: users are in it as counts and shares alone.",
    "Comparing partners or CSMs: their accounts differ, and high risk is not bad work.",
    "Accounts with little data: new customers, silent sources. Their scores say so.",
    "Another book, or this one after what it sells or records has changed, without training and judging again.",
)

_FOUND = "share of all with the outcome"
_MEASURES: Mapping[str, tuple[str, Show, str]] = {
    "auc": ("AUC", three_digits, "share of the pairs, one account with the outcome and one without, ordered rightly; chance is .5"),
    "average_precision": ("Average precision", three_digits, "mean share of hits down the list; chance is the base rate"),
    "lift_top_10": ("Lift in the top 10 %", two_digits, "times as many with the outcome among the highest scores as on average"),
    "recall_top_5": ("Found in the top 5 %", percent, _FOUND),
    "recall_top_10": ("Found in the top 10 %", percent, _FOUND),
    "recall_top_20": ("Found in the top 20 %", percent, _FOUND),
    "arr_caught_top_10": ("ARR found in the top 10 %", percent, "share of the ARR at stake, accounts ordered by probability times ARR"),
    "brier": ("Brier score", four_digits, "mean squared error of the probability; less is better"),
    "brier_skill": ("Brier skill", three_digits, "share of that error that is saved over always saying the base rate"),
    "ece": ("Calibration error (ECE)", four_digits, "mean gap between what was said and what happened"),
    "ece_expected": ("... of it by chance", four_digits, "the error that a perfect model would show on so many rows"),
    "empc": (
        "Expected maximum profit (EMPC)",
        two_digits,
        "of a campaign, for each customer, at the costs of the literature; only compares",
    ),
    "empb": ("Expected maximum profit, B2B (EMPB)", two_digits, "the same at each customer's own ARR, in the book's currency"),
}
"""What a measure is called, how it is shown, and what it is."""


def render_card(part: Json, *, target: Target, training: Json) -> str:
    """Return a target's model card in Markdown.

    Parameters
    ----------
    part
        The target's part of the training's report.
    training
        What the report says of the whole training, as far as known: `book`, `run`, `made_at`, `code_version`, `data_fingerprint`,
        `features`, `horizon_days`, `lead_days`.
    """
    chapters: Sequence[tuple[str, Iterable[str]]] = (
        ("What it answers", _answers(part, target, training)),
        ("What it is for", (*_bullets(_USES), "", "It is not for:", "", *_bullets(_MISUSES))),
        ("How good it is", _quality(part)),
        ("Against what is easier", _baselines(part)),
        ("For whom", _slices(part)),
        ("What was said, and what happened", _calibration(part)),
        ("The backtest", _folds(part)),
        ("What moves the scores", _importance(part)),
        ("How sure the reasons are", _stability(part)),
        ("What each family of features adds", _ablation(part)),
        ("The audit for leaks", _audit(part)),
        ("The data", _data(part)),
        ("How it was made", _making(part, training)),
        ("What to keep in mind", _limits(part)),
    )
    head = [f"# Model card: {target}", "", *([f"**{part['verdict']}**", ""] if part.get("verdict") else []), *_decision(part)]
    return "\n".join([*head, *(line for title, lines in chapters for line in _chapter(title, lines)), _SOURCE, ""])


_SOURCE = "_After Mitchell et al., Model Cards for Model Reporting, 2019. Intervals are 95 %, over resampled accounts._"


def render_history(promotions: Sequence[Promotion]) -> str:
    """Return the chapter on which versions were in use, the latest first."""
    rows = [(f"{one.at:%Y-%m-%d %H:%M}", one.version, one.replaced or "-", one.way, one.reason) for one in reversed(promotions)]
    table = _table(("when (UTC)", "version", "instead of", "by", "because"), rows)
    return "\n".join(_chapter("Which versions were in use", table)) + "\n"


def _chapter(title: str, lines: Iterable[str]) -> list[str]:
    told = list(lines)
    return [f"## {title}", "", *told, ""] if told else []


def _decision(part: Json) -> Lines:
    if part.get("decision"):
        version = f"Version {part['version']}, registered" if part.get("version") else "Registered"
        yield f"{version} as {part.get('role', 'challenger')} when it was trained. {part['decision']}"
        yield ""


def _answers(part: Json, target: Target, training: Json) -> Lines:
    horizon, lead = training.get("horizon_days"), training.get("lead_days") or 0
    window = "within the horizon" if horizon is None else f"within {horizon} days"
    when = f"{window}, counted from {number_of(lead, 'day')} ahead" if lead else window
    yield f"{_QUESTIONS[target].format(when=when)} The answer is a probability, and the reasons for it in the words of the features."
    if part.get("base_rate") is not None:
        yield f"It happened in {tenths(part['base_rate'])} of the labelled rows; a row is one account on one day."


def _quality(part: Json) -> Lines:
    metrics = part.get("metrics") or {}
    rows = [(name, estimate(metrics[key], show), words) for key, (name, show, words) in _MEASURES.items() if key in metrics]
    if not rows:
        return
    if part.get("test_rows"):
        yield (
            f"Measured on {number_of(part['test_rows'], 'row')} of {part['test_from'][:10]} to {part['test_to'][:10]}, "
            f"{part['test_positives']:,} of them with the outcome, that the models had not seen."
        )
        yield ""
    yield from _table(("measure", "value", "what it is"), rows)


def _baselines(part: Json) -> Lines:
    baselines = part.get("baselines") or {}
    ordered = sorted(baselines, key=lambda name: -float(baselines[name]["auc"]["value"]))
    rows = [
        (name, _code(baselines[name].get("feature")), _estimate(baselines[name]["auc"]), _estimate(baselines[name].get("gain"), with_sign))
        for name in ordered
    ]
    if rows:
        yield "Lists that anybody could make, and a logistic regression of all features. The gain is the model's, on the same rows."
        yield ""
        yield from _table(("baseline", "by", "AUC", "gain of the model"), rows)


def _slices(part: Json) -> Lines:
    slices = part.get("slices") or {}
    for spot in part.get("weak_spots") or ():
        what = "orders them less well" if spot["measure"] == "auc" else "is off by more than chance explains"
        name, show, _ = _MEASURES.get(spot["measure"], (spot["measure"], four_digits, ""))
        found = f"{name} {estimate(spot['found'], show)}, against {show(spot['against'])}"
        yield f"- **Weak: {spot['slice']} {spot['level']}.** The model {what}: {found}."
    if part.get("weak_spots"):
        yield ""
    elif slices:
        yield "No part was found for which it is worse than for the whole by more than its interval."
        yield ""
    rows = [
        (
            dimension,
            level,
            f"{found['rows']:,}",
            f"{found['positives']:,}",
            _estimate((found.get("metrics") or {}).get("auc"), reason=found),
        )
        for dimension, levels in slices.items()
        for level, found in levels.items()
    ]
    if rows:
        yield from _table(("by", "part", "rows", "with the outcome", "AUC"), rows)


def _calibration(part: Json) -> Lines:
    curve = part.get("calibration_curve") or ()
    rows = [
        (
            tenths(point["probability"]),
            tenths(point["frequency"]),
            f"{tenths(point['low'])} to {tenths(point['high'])}",
            f"{point['rows']:,}",
        )
        for point in curve
    ]
    if rows:
        yield from _table(("said", "happened", "interval of what happened", "rows"), rows)


def _folds(part: Json) -> Lines:
    rows = [
        (
            f"{fold['test_from'][:10]} to {fold['test_to'][:10]}",
            fold.get("trained_until", "-")[:10],
            f"{fold['rows']:,}",
            f"{fold['positives']:,}",
            _estimate((fold.get("metrics") or {}).get("auc")),
        )
        for fold in part.get("folds") or ()
    ]
    if rows:
        yield (
            "The test period is cut into blocks. Each is scored by a model that was trained only on rows whose outcome was known "
            "when the block began; all measures here are of these models together."
        )
        yield ""
        yield from _table(("block", "trained until", "rows", "with the outcome", "AUC"), rows)


def _importance(part: Json) -> Lines:
    top = (part.get("importance") or ())[:_TOP]
    rows = [(_code(entry["feature"]), entry["family"], entry.get("meaning", ""), f"{entry['mean_abs_part']:.2f}") for entry in top]
    if rows:
        yield "Mean size of a feature's part in a score, in log-odds: .69 doubles or halves the odds. It says nothing about causes."
        yield ""
        yield from _table(("feature", "family", "what it is", "size"), rows)


def _stability(part: Json) -> Lines:
    found = part.get("stability")
    if found:
        yield (
            f"{number_of(found['models'], 'model')} that learnt from other draws of the accounts explain the same rows. "
            f"Two of them agree on the family that matters most for {percent(found['same_family'])} of the rows, and on the feature for "
            f"{percent(found['same_feature'])}; their lists of features by importance correlate by {found['rank_correlation']:.2f}."
        )


def _ablation(part: Json) -> Lines:
    rows = [(entry["family"], str(entry["features"]), _estimate(entry["auc"], with_sign)) for entry in part.get("ablation") or ()]
    if rows:
        yield "The AUC with the family less that without it. Where other families say the same, it is small."
        yield ""
        yield from _table(("family", "features", "gain in AUC"), rows)


def _audit(part: Json) -> Lines:
    audit = part.get("audit")
    if audit is None:
        return
    for finding in audit["findings"]:
        yield f"- **{finding['severity'].capitalize()}: {finding['subject']}.** {finding['message']} {finding.get('todo', '')}".rstrip()
    if not audit["findings"]:
        yield "Nothing was found."
    if audit.get("probes"):
        yield ""
        yield f"Looked for: {'; '.join(audit['probes'])}."


def _data(part: Json) -> Lines:
    rows = [
        (name, f"{part[f'{prefix}rows']:,}", f"{part[f'{prefix}positives']:,}")
        for name, prefix in (("all labelled rows", ""), ("before the test period", "train_"), ("test period", "test_"))
        if f"{prefix}rows" in part
    ]
    if rows:
        yield "The version that scores was trained on all labelled rows, by the procedure that was judged."
        yield ""
        yield from _table(("", "rows", "with the outcome"), rows)


def _making(part: Json, training: Json) -> Lines:
    parameters = dict(part.get("parameters") or {})
    facts = {
        "book": training.get("book"),
        "training": training.get("run"),
        "made": str(training.get("made_at") or "")[:16].replace("T", " "),
        "code": training.get("code_version"),
        "snapshots (SHA-256)": _code((training.get("data_fingerprint") or "")[:16]),
        "package (SHA-256)": _code((part.get("package_hash") or "")[:16]),
        "features": training.get("features"),
        "model": "gradient-boosted trees (LightGBM)" if parameters else None,
        "parameters": ", ".join(f"{name} {value}" for name, value in parameters.items()),
        "calibrated by": part.get("calibrator"),
        "recipes tried": _searched(part.get("search")),
    }
    rows = [(name, str(value)) for name, value in facts.items() if value not in (None, "")]
    if rows:
        yield from _table(("", ""), rows)


def _searched(search: Json | None) -> str:
    if not search:
        return ""
    tried = search["trials"]
    dropped = sum(trial["loss"] is None for trial in tried)
    taken = "the given one was kept" if search["best"] == 0 else f"number {search['best'] + 1} was taken"
    gain = f"{search['gain']:.5f} (± {search['error']:.5f})"
    return f"{len(tried)}, {dropped} of them given up early; {taken}; the best is better by {gain} in log loss"


def _limits(part: Json) -> Lines:
    yield from (f"- {note}" for note in part.get("notes") or ())
    yield "- Intervals hold for other accounts of the same time. They know nothing of a market that changes."
    yield "- It has learnt from what was done: an account that was saved is counted as one that was never lost."
    yield "- The measures are of the backtest's models; the version that scores has seen more, and is not measured until time has passed."


_TOP = 12


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _bullets(lines: Iterable[str]) -> Lines:
    yield from (f"- {line}" for line in lines)


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def _estimate(found: Json | None, show: Show = three_digits, *, reason: Json | None = None) -> str:
    if found is None:
        return str((reason or {}).get("reason") or "-").splitlines()[0]
    return estimate(found, show)
