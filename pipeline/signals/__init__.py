"""Pictures and sounds as networks take them: read, brought to one size, on one fixed scale."""
