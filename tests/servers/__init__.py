"""Real servers and processes for tests, and what talks to them."""
