"""What runs when, and what is written down: stages, artifacts, trials, tracking, results and the command line."""
