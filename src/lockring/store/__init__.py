"""Where the coordinator's state lives: in memory, or in a directory."""
