"""A fleet of real processes on this machine, as one command; a root of its own beside the service."""
