"""Datasets for the Hub: a folder of images or parquet files with its card, in one commit."""
