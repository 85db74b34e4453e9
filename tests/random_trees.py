"""Models of any shape on random rows with missing values, levels and levels that training has not seen."""

import lightgbm as lgb
import numpy as np

LEVELS = 6


def rows(rng, count):
    matrix = np.round(rng.normal(0, 2, (count, 7)), 1)
    matrix[:, 5:] = rng.integers(0, LEVELS, (count, 2))
    matrix[rng.random(matrix.shape) < 0.15] = np.nan
    return matrix


def trained(seed, **changed):
    rng = np.random.default_rng(seed)
    matrix = rows(rng, 1200)
    known = np.nan_to_num(matrix)
    risk = known[:, 0] - known[:, 1] * (known[:, 2] > 0) + 0.8 * np.isin(known[:, 5], [1, 4]) - 0.5 * (known[:, 6] == 2) - 0.5
    outcome = (rng.random(len(matrix)) < 1 / (1 + np.exp(-risk))).astype(float)
    parameters = {"objective": "binary", "num_leaves": 15, "max_depth": 5, "verbosity": -1, "num_threads": 1, "seed": seed, **changed}
    data = lgb.Dataset(matrix, outcome, categorical_feature=[5, 6], weight=rng.uniform(0.5, 2, len(matrix)))
    return lgb.train(parameters, data, num_boost_round=30)
