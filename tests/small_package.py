"""A small churn model, packaged, for tests that score with one."""

from training.calibration import PlattCalibrator
from training.dataset import encode_features, learn_categories, load_dataset
from training.model import Problem, fit_booster, make_recipe
from training.package import Package, describe

__all__ = ["small_package"]


def small_package(snapshots, catalogue, *, parameters, trees, horizon_days):
    """Train a churn package on all labelled rows of some snapshots."""
    data = load_dataset(snapshots, "churn", catalogue)
    categories = learn_categories(data.features, catalogue)
    matrix = encode_features(data.features, features=catalogue.names, categories=categories)
    recipe = make_recipe(parameters, seed=0, threads=1)
    problem = Problem(matrix=matrix, target=data.target, target_name="churn", catalogue=catalogue, recipe=recipe)
    return Package(
        target="churn",
        model=fit_booster(problem, trees),
        calibrator=PlattCalibrator(slope=1.1, intercept=-0.05),
        catalogue=catalogue,
        categories=categories,
        reference=describe(data.features, catalogue),
        horizon_days=horizon_days,
        lead_days=0,
        cutoff=data.cutoffs[-1].item(),
        base_rate=float(data.target.mean()),
        recipe=recipe.to_json(),
        data_fingerprint="0" * 64,
        code_version="test",
    )
