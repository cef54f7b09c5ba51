"""Self-supervised pretraining on unlabelled micrographs."""
