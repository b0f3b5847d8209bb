"""Many runs at once, on processes, executors or a GPU."""
