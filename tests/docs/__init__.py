"""Every code block of every page is run as a reader would run it, or says why it is not."""
