"""Micrographs: reading, labelled folders, crops, degradations and simulation. Imports no model."""
