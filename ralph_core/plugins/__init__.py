"""How plugins are found, kept apart, and called for no longer than they may take."""
