"""The trace of a run: its spans, where they go, and how they are read again."""
