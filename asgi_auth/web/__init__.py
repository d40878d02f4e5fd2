"""The part that uses Starlette. It reads requests, runs the phases and writes the answers."""
