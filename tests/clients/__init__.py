"""Third-party API clients, unmodified, against a running server with a real worker and libvirt's test driver."""
