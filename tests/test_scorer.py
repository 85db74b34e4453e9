import numpy as np
import pytest

from features.errors import PackageError
from training.dataset import load_dataset
from training.scorer import _load_pyfunc


def test_it_scores_as_the_package_does(tmp_path, synthetic_package, synthetic_snapshots, synthetic_catalogue):
    synthetic_package.save(tmp_path / "package")
    frame = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features.head(50)
    found, expected = _load_pyfunc(str(tmp_path)).predict(frame), synthetic_package.score_rows(frame)
    np.testing.assert_array_equal(found["raw"], expected.raw)
    np.testing.assert_array_equal(found["probability"], expected.probability)
    assert found.index.equals(frame.index)


def test_a_folder_without_a_package_is_refused(tmp_path):
    with pytest.raises(PackageError, match="there is no model package"):
        _load_pyfunc(str(tmp_path))
