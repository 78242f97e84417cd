"""Fitting networks: the loop, its checkpoints and histories, several processes."""
