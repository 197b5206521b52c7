"""`lockring demo`: a cluster, workers that compete for one lock, and failures, with a word on each."""
