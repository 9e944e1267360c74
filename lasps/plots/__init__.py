"""Plots: frames in, figures out. Imports config only."""
