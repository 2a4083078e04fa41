"""Variants of the fusion network compared: trials that are never run twice, and what they have found as pages."""
