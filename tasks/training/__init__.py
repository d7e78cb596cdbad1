"""The training loop stages share: batches in, a trained module out, never losing a step."""
