"""Checkpoints: load and save a model folder, count what is in it."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
"""A transformers config, as in config.json."""
