"""What becomes of an address that somebody tells: each module writes one kind of row, and `recording` has the order."""
