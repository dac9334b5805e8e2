"""From a message to its handler, and from what that returns to an answer."""
