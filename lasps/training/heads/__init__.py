"""Sector heads on the frozen backbone's shared features.

settings, data        what is trained on what
shared_features       the backbone's output, computed once
directions, joint     the default: all sectors together, on directions that they share
stack, gradients, independent    rank 0: each sector's head on its own
acceptance, nested    what val accepts: initial heads, a common change, sectors
"""
