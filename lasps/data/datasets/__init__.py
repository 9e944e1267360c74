"""Samples as tensors: from the interchange format's four arrays, or cut on demand from rows stored once."""
