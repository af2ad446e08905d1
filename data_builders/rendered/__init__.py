"""Faces of a morphable model: drawn by a seed, true by construction."""
