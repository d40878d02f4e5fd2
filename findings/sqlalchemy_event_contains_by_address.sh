#!/usr/bin/env bash
# SQLAlchemy 2.1.9 (and 2.0.46): event.contains returns True for an engine that has no listener.
#
# Expected: `event.contains(engine, "handle_error", listener)` returns True if this engine has the listener, so that
# `if not event.contains(…): event.listen(…)` registers it once for each engine.
# Seen: the key of the registry is id(engine). An entry lives as long as the collection of listeners, which belongs to
# the dialect for `handle_error`. If a dialect outlives its engine, event.contains returns True for a new engine at the
# same memory address with another dialect, although that engine has no listener.
# What it means: keep a WeakSet of the engines with the listener instead of calling event.contains.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

for version in 2.0.46 2.1.9; do
    "$folder/venv/bin/pip" install -q "sqlalchemy==$version"
    "$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
import gc

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine


def listener(_context):
    """Does nothing."""


def seen_at_the_same_address():
    other, engine = create_engine("sqlite://"), create_engine("sqlite://")
    event.listen(engine, "handle_error", listener)
    dialect, address = engine.dialect, id(engine)  # the dialect is kept
    del engine
    gc.collect()
    held = []  # so that every try gets another address
    for _ in range(3000):
        new = Engine.__new__(Engine)
        if id(new) == address:
            new.__init__(other.pool, other.dialect, other.url)
            has = listener in list(new.dialect.dispatch.handle_error)
            return f"contains: {event.contains(new, 'handle_error', listener)}, the listener is there: {has}"
        held.append(new)
    return None  # another object got the address


print(next(filter(None, (seen_at_the_same_address() for _ in range(20))), "no address came again"))
PYTHON
    echo "SQLAlchemy $version: $(cat "$folder/seen")"
    [[ $(cat "$folder/seen") == "contains: True, the listener is there: False" ]]
done
