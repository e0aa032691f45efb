"""What a run rests on and how it ended."""
