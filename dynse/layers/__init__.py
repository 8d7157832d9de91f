"""Layers as plain functions `(params, state, x) -> (state, y)`, each with its cost beside it."""
