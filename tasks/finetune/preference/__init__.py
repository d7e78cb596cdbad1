"""What the objectives that learn from preferences and rewards share: their rows, trl's trainers, the reference model."""
