"""The console's pages about NICs and their addresses."""
