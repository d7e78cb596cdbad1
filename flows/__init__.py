"""A flow decides when; DVC decides whether; a task decides how."""
