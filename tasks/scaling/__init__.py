"""Scaling: a ladder of small runs, a law fitted to them, and what it says of larger ones."""
