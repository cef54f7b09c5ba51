"""Simulated micrographs with exact truth."""
