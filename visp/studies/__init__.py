"""Studies: runs of runs, and what they show."""
