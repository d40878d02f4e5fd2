"""Standards and formats as pure functions: no await, no clock, no randomness, no database, no framework."""
