"""Datasets for the Hub: a folder of micrographs, or of parquet files, with its card, pushed in one commit."""
