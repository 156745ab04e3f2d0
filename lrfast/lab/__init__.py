"""What the command runs: the demo, the lecture and the benchmark. No API."""
