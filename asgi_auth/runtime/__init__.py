"""What the package needs of an event loop and its threads: jobs, lanes, turns; and lines of the log. No policy."""
