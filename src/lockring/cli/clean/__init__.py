"""`lockring clean-folders`: remove folders that became empty."""
