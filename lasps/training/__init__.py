"""The three phases: losses, schedules, loops, checkpoints, and prediction."""
