"""Scripts that produce every measured number and picture of the README; their committed results lie in `benchmarks/results`."""
