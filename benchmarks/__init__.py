"""What the project claims, each claim a command: ``python -m benchmarks.NAME --json OUT``."""
