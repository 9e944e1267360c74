"""Samples as tensors: from the seed's four arrays, or cut on demand from rows stored once."""
