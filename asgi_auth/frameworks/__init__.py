"""Code for single frameworks. Each module imports its framework, and is imported only if that is in use."""
