"""What is particular to one framework. Each module imports its framework, and is imported only where that is in use."""
