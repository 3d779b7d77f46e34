"""The account of a run: made, chained, carried to each sink apart, and checked."""
