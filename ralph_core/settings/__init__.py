"""The settings of a run: where they come from, how they are written, and the model that validates them."""
