"""Stand-ins for hypervisors, for tests and for `make demo`: nothing here needs pytest."""
