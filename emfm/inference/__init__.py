"""Prediction on micrographs of any size."""
