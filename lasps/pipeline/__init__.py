"""The main job, step by step: build a dataset, run the phases, validate checkpoints, sum up, forecast."""
