"""What makes a training step quick on the processor it runs on: attention, cross-entropy, compiled blocks, a heap that stays."""
