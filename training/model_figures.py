"""Figures of what a model is made of: the features that move its scores, how sure that is, what each family adds, and the search."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.canvas import ACCENT, MODEL, MUTED, OTHER, Mark, bare_rows, name_axes, say, sheet, show_rows
from training.phrases import Json, number_of, percent, shorten, two_digits, with_sign

__all__ = ["draw_ablation", "draw_importance", "draw_search", "draw_stability"]

_TOP_FEATURES = 15


def draw_importance(importance: Sequence[Json], *, target: str) -> Figure:
    """Draw which features move scores most.

    Parameters
    ----------
    importance
        `feature`, `family` and `mean_abs_part` in log-odds, the most important first.
    """
    top = importance[:_TOP_FEATURES]
    subtitle = "Mean size of a feature's part in a score, in log-odds: .69 doubles or halves the odds."
    figure, axes = sheet(f"What moves the scores: {target}", subtitle, height=0.23 * len(top), left=2.4, right=1.2, bottom=0.4)
    sizes = [float(entry["mean_abs_part"]) for entry in top]
    axes.barh(range(len(sizes)), sizes, color=MODEL, height=0.62)
    for row, entry in enumerate(top):
        beside = axes.get_yaxis_transform()
        say(axes, -0.02, row, shorten(entry["feature"], 34), ha="right", va="center", transform=beside)
        say(axes, sizes[row], row, f"  {sizes[row]:.2f}  {entry['family']}", color=MUTED, size=7.5, va="center")
    bare_rows(axes, len(top))
    return figure


def draw_stability(stability: Json, *, target: str) -> Figure:
    """Draw how much each family of features moves scores, and how far that would be another had other accounts been in the book.

    Parameters
    ----------
    stability
        `models` and `families`: by name `mean`, `lowest` and `highest` over the models.
    """
    families = stability["families"]
    subtitle = (
        f"Mean size of a family's part in a score, in log-odds; the whiskers span {stability['models']} models of resampled accounts. "
        f"Two of them agree on the largest family of {percent(stability['same_family'])} of the rows; "
        f"rank correlation of the features {stability['rank_correlation']:.2f}."
    )
    figure, axes = sheet(f"How stable the reasons are: {target}", subtitle, height=0.28 * len(families), left=1.0, right=1.5)
    show_rows(axes, [Mark(name, spread["mean"], spread["lowest"], spread["highest"]) for name, spread in families.items()], show=two_digits)
    axes.set_xlim(0, None)
    name_axes(axes, "Log-odds")
    return figure


def draw_ablation(ablation: Sequence[Json], *, target: str) -> Figure:
    """Draw what the AUC loses without a family of features.

    Parameters
    ----------
    ablation
        `family`, `features` and the paired gain in `auc`.
    """
    subtitle = "AUC with the family less that of a model trained without it. It is small where other families can stand in for it."
    figure, axes = sheet(f"What each family adds: {target}", subtitle, height=0.28 * len(ablation), left=1.0, right=2.7)
    axes.axvline(0, color=OTHER, linewidth=1)
    show_rows(
        axes, [Mark.of(entry["family"], entry["auc"], note=number_of(entry["features"], "feature")) for entry in ablation], show=with_sign
    )
    name_axes(axes, "Gain in AUC")
    return figure


def draw_search(search: Json, *, target: str) -> Figure:
    """Draw what a search tried, and the best so far.

    Parameters
    ----------
    search
        `trials`, each with its `loss` on later folds, or None where it was given up early; `best`, the position of the one taken.
    """
    found = np.array([np.nan if trial["loss"] is None else trial["loss"] for trial in search["trials"]], dtype=np.float64)
    taken, given_up = int(search["best"]), np.isnan(found)
    subtitle = (
        f"{number_of(len(found), 'recipe')} tried, {given_up.sum()} of them given up early (crosses). The first is the one that was given."
    )
    figure, axes = sheet(f"The search for parameters: {target}", subtitle, height=2.6, right=1.2)
    number = np.arange(1, len(found) + 1)
    axes.plot(number, found, "o", color=OTHER, markersize=4.5, markeredgewidth=0)
    axes.step(number, np.fmin.accumulate(found), where="post", color=MODEL, linewidth=1.6)
    axes.plot([number[taken]], [found[taken]], "o", markersize=10, markerfacecolor="none", markeredgecolor=ACCENT, markeredgewidth=1.6)
    floor = axes.get_ylim()[0]
    axes.plot(number[given_up], np.full(given_up.sum(), floor), "x", color=OTHER, markersize=5, clip_on=False)
    axes.set_ylim(floor, None)
    axes.set_xlim(0, len(found) + 1)
    beside = axes.get_yaxis_transform()
    say(axes, 1.02, float(found[taken]), f"taken: {found[taken]:.4f}", color=ACCENT, va="center", fontweight="bold", transform=beside)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, "Trial", "Log loss on later folds")
    return figure
