"""Batch evaluation: benchmarks in, figures beside their baselines out."""
