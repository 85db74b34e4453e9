"""Training: LightGBM models, their calibration and judgement, and the package that is served."""
