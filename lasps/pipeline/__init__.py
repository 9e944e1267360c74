"""The main job, room by room: build a dataset, run the phases, validate checkpoints, sum up, forecast."""
