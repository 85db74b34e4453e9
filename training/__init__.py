"""Training: LightGBM models, their calibration and judgement, and the package that is served."""

from training.dataset import Dataset, encode_features, load_dataset
from training.package import Package, load_package
from training.report import read_report

__all__ = ["Dataset", "Package", "encode_features", "load_dataset", "load_package", "read_report"]
