"""What happens to a case: stages, batches, their status."""
