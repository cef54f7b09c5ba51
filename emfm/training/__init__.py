"""Pretraining, fine-tuning and their losses and metrics."""
