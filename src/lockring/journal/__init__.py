"""A node's journal on disk: its format, its files, the judgement on one that is found, and the thread that syncs."""
