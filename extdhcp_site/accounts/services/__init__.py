"""What is done with domains, accounts, users and their API keys."""
