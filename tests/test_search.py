from dataclasses import replace

import lightgbm as lgb
import numpy as np
import optuna
import pytest
from scipy.optimize import minimize

from features.errors import ConfigError, NotEnoughDataError
from training.calibration import row_losses
from training.dataset import encode_features, learn_categories, load_dataset
from training.model import Problem, fit_booster, make_recipe, raw_scores
from training.search import SEARCHED, search_recipe
from training.splits import LabelWindow, inner_folds

POOR = {"learning_rate": 0.3, "max_rounds": 80, "num_leaves": 4, "max_depth": 2, "min_data_in_leaf": 400, "feature_fraction": 0.1}
RECIPE = make_recipe(POOR, seed=0, threads=1)
WINDOW = LabelWindow(horizon_days=60, lead_days=0, grace_days=0)
TRIALS = 12
VARIED = set(SEARCHED) - {"learning_rate"}  # a value outside its range stays


@pytest.fixture(scope="module")
def book(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    categories = learn_categories(data.features, synthetic_catalogue)
    matrix = encode_features(data.features, features=synthetic_catalogue.names, categories=categories)
    problem = Problem(matrix=matrix, target=data.target, target_name="churn", catalogue=synthetic_catalogue, recipe=RECIPE)
    return problem, inner_folds(data, WINDOW).folds, data.account_id


def search(book, *, trials=TRIALS, **options):
    problem, folds, accounts = book
    return search_recipe(problem, folds, accounts=accounts, trials=trials, **options)


@pytest.fixture(scope="module")
def found(book):
    return search(book)


def held_out(book, parameters, rounds):
    """Return the scores of each fold's later rows by a model of its earlier ones, and the outcomes."""
    problem, folds, _ = book
    recipe = replace(problem.recipe, parameters={**problem.recipe.parameters, **parameters, "feature_pre_filter": "false"})
    models = [fit_booster(replace(problem, recipe=recipe), rounds, rows=earlier) for earlier, _ in folds]
    return [
        (raw_scores(lgb.Booster(model_str=model), problem.matrix[later]), problem.target[later])
        for model, (_, later) in zip(models, folds, strict=True)
    ]


def calibrated_losses(raw, target):
    """Return each row's loss under the line of least loss, found by a general minimiser."""
    start, bounds = np.array([1.0, 0.0]), [(0.01, 5), (None, None)]
    line = minimize(lambda line: row_losses(line[0] * raw + line[1], target).mean(), start, method="Nelder-Mead", bounds=bounds, tol=1e-10)
    return row_losses(line.x[0] * raw + line.x[1], target)


def test_the_first_trial_is_the_given_recipe(found):
    given = {name: RECIPE.parameters.get(name, 0) for name in VARIED}
    assert found.trials[0].parameters == given
    assert not found.trials[0].pruned


def test_a_trial_is_worth_the_calibrated_loss_of_models_of_earlier_rows(book, found):
    for trial in (found.trials[0], found.trials[found.best]):
        losses = [calibrated_losses(*scored).mean() for scored in held_out(book, trial.parameters, trial.rounds)]
        assert trial.loss == pytest.approx(np.mean(losses), abs=1e-6)
        assert all(least <= loss + 1e-6 for least, loss in zip(trial.losses, losses, strict=True))


def test_the_number_of_trees_is_the_best_of_those_tried(book, found):
    best = found.trials[found.best]
    assert best.rounds < RECIPE.max_rounds
    for rounds in (best.rounds - 3, best.rounds + 1):
        other = np.mean([calibrated_losses(*scored).mean() for scored in held_out(book, best.parameters, rounds)])
        assert best.loss <= other + 1e-6


def test_two_runs_give_the_same_text_model(book, found):
    again = search(book)
    assert again == found
    models = [fit_booster(replace(book[0], recipe=result.recipe), result.rounds) for result in (found, again)]
    assert models[0] == models[1]
    another = replace(book[0], recipe=replace(RECIPE, seed=1))
    assert search((another, *book[1:]), trials=3).trials != found.trials[:3]


def test_trials_above_the_median_of_the_finished_ones_are_dropped(found):
    pruned = [number for number, trial in enumerate(found.trials) if trial.pruned]
    assert pruned
    for number in pruned:
        trial = found.trials[number]
        assert (trial.loss, trial.rounds) == (None, None)
        done = len(trial.losses)
        before = [np.mean(other.losses[:done]) for other in found.trials[:number] if not other.pruned]
        assert len(before) >= 5
        assert np.mean(trial.losses) > np.median(before)


def test_a_found_recipe_is_better_by_more_than_the_error_over_accounts(book, found):
    _, folds, accounts = book
    lowest = min((trial for trial in found.trials if not trial.pruned), key=lambda trial: trial.loss)
    gains = []
    for one, two in zip(*(held_out(book, trial.parameters, trial.rounds) for trial in (found.trials[0], lowest)), strict=True):
        gains.append((calibrated_losses(*one) - calibrated_losses(*two)) / (len(one[0]) * len(folds)))
    by_account = {}
    for account, gain in zip(accounts[np.concatenate([later for _, later in folds])], np.concatenate(gains), strict=True):
        by_account[account] = by_account.get(account, 0.0) + gain
    total = sum(by_account.values())
    assert found.gain == pytest.approx(total, abs=1e-6)
    assert found.error == pytest.approx(np.sqrt(np.sum(np.square(list(by_account.values())))), rel=0.15)
    assert found.gain > found.error
    assert found.trials[found.best] == lowest
    assert found.rounds == lowest.rounds
    assert found.recipe.parameters == {**RECIPE.parameters, **lowest.parameters, "feature_pre_filter": "false"}


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_can_be_learnt_no_recipe_is_found(book, seed):
    problem, folds, accounts = book
    noise = (np.random.default_rng(seed).random(len(problem.target)) < 0.2).astype(float)
    result = search((replace(problem, target=noise), folds, accounts), trials=6)
    assert 0 <= result.gain < 3 * result.error or result.best == 0
    assert (result.best == 0) == (result.gain <= result.error)
    assert result.best or result.recipe == RECIPE


def test_parameters_that_a_workspace_sets_stay(book):
    problem, folds, accounts = book
    fixed = {name: 0 for name in SEARCHED if name not in ("lambda_l2", "feature_fraction")}
    result = search((problem, folds, accounts), trials=3, fixed=fixed)
    assert all(set(trial.parameters) == {"lambda_l2", "feature_fraction"} for trial in result.trials)
    assert result.recipe.parameters["num_leaves"] == RECIPE.parameters["num_leaves"]


def test_a_value_outside_its_range_stays(found):
    assert RECIPE.parameters["learning_rate"] > SEARCHED["learning_rate"].high
    assert all("learning_rate" not in trial.parameters for trial in found.trials)
    assert found.recipe.parameters["learning_rate"] == RECIPE.parameters["learning_rate"]


def test_a_fixed_number_of_trees_stays(book):
    fixed = replace(RECIPE, rounds=15)
    result = search((replace(book[0], recipe=fixed), *book[1:]), trials=2)
    assert result.rounds == 15
    assert {trial.rounds for trial in result.trials} == {15}


def test_what_is_tried_stays_within_the_ranges(found):
    assert SEARCHED["max_depth"].high <= 6
    for trial in found.trials:
        for name, value in trial.parameters.items():
            assert SEARCHED[name].low <= value <= SEARCHED[name].high
            assert isinstance(value, int) or not SEARCHED[name].whole


def test_the_table_has_a_row_for_each_trial(found):
    table = found.table()
    assert table["pruned"].tolist() == [trial.pruned for trial in found.trials]
    assert table["loss"].isna().tolist() == table["pruned"].tolist()
    assert table["loss"].idxmin() == min((n for n, t in enumerate(found.trials) if not t.pruned), key=lambda n: found.trials[n].loss)
    assert {"trial", "loss", "rounds", "pruned", *VARIED} == set(table.columns)


def test_progress_is_told_and_nothing_else(book, capfd):
    told, before = [], optuna.logging.get_verbosity()
    search(book, trials=2, on_progress=lambda what, done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_features_that_say_nothing_do_no_harm(book):
    problem, folds, accounts = book
    matrix = problem.matrix.copy()
    matrix[:, 0], matrix[:, 1] = 1.0, np.nan
    result = search((replace(problem, matrix=matrix), folds, accounts), trials=2)
    assert np.isfinite(result.trials[0].loss)


def test_scores_without_any_meaning_are_worth_the_entropy(book):
    problem, folds, accounts = book
    result = search((replace(problem, matrix=np.ones_like(problem.matrix)), folds, accounts), trials=1)
    rates = [problem.target[later].mean() for _, later in folds]
    assert result.trials[0].loss == pytest.approx(np.mean([-(p * np.log(p) + (1 - p) * np.log1p(-p)) for p in rates]), abs=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_a_fold_with_one_outcome_is_refused(book, side):
    problem, folds, accounts = book
    target = problem.target.copy()
    target[folds[1][side]] = 0.0
    with pytest.raises(NotEnoughDataError, match="fold 2"):
        search((replace(problem, target=target), folds, accounts))


def test_without_folds_there_is_no_search(book):
    with pytest.raises(NotEnoughDataError, match="0 folds"):
        search((book[0], (), book[2]))


@pytest.mark.parametrize(("options", "message"), [({"trials": 0}, "needs a trial"), ({"fixed": SEARCHED}, "nothing to search")])
def test_an_empty_search_is_refused(book, options, message):
    with pytest.raises(ConfigError, match=message):
        search(book, **options)
