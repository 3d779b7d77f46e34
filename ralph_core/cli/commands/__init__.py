"""What users may type: the commands with their options, a module each group. What they do is in the modules beside."""
