"""What an operator sees of a run from outside: figures, pages, a log, a command at its end."""
