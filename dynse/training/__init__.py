"""Losses, the train step, the loop, checkpoints."""
