"""What a user sees in the graph: one file per node family."""
