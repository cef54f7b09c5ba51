"""Fine-tuning and measuring on micrographs with truth."""
