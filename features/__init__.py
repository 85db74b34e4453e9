"""Feature pipelines: from a folder of tables to features that are correct at every point in time."""
