"""Thin entry points: parse the flags, call lasps, print, exit."""
