"""All that knows Starlette: it reads requests, runs the phases and writes the answers."""
