"""Where things run: connecting to Ray, placement and gangs of ranks."""
