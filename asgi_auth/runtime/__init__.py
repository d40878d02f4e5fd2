"""The event loop, threads and log lines of the package: jobs, lanes, turns and telling. No policy."""
