"""Measurements: each prints what it saw, side by side with its peer in one run."""
