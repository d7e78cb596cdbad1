"""Checkpoints: account for, load and save a model folder."""
