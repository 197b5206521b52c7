"""lockring and what it may be compared with, measured side by side in one run: `python -m bench --help`."""
