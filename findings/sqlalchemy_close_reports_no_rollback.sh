#!/usr/bin/env bash
# SQLAlchemy 2.1.9 (and 2.0.46): which events of a Session report that its changes are gone.
#
# Expected: a session that is closed, or reset, with an open transaction rolls it back, so that a listener of
# `after_rollback`, the documented place to undo or repeat what hangs on the transaction, hears of it.
# Seen: the changes are gone, but close() and reset() fire `after_transaction_end` alone; only rollback() fires
# `after_rollback`. The end of an `async with AsyncSession(…)` block is a close(). `after_commit` on the other hand is
# fired for each savepoint that is released, not only for the transaction.
# What it means: count again, or warn, in `after_transaction_end`, and tell a commit by the `after_commit` just before it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

for version in 2.0.46 2.1.9; do
    "$folder/venv/bin/pip" install -q "sqlalchemy==$version"
    "$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

EVENTS = ("after_commit", "after_rollback", "after_transaction_end")


def told_by(end):
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER)"))
    session, told = Session(engine), []
    for name in EVENTS:
        event.listen(session, name, lambda *_, name=name: told.append(name))
    session.execute(text("INSERT INTO things VALUES (1)"))
    end(session)
    with engine.connect() as connection:
        left = connection.execute(text("SELECT count(*) FROM things")).scalar_one()
    return left, " ".join(told)


def savepoint(session):
    with session.begin_nested():
        pass


print("rollback()", *told_by(Session.rollback))
print("close()", *told_by(Session.close))
print("reset()", *told_by(Session.reset))
print("commit()", *told_by(Session.commit))
print("savepoint", told_by(savepoint)[1])
PYTHON
    echo "SQLAlchemy $version"
    cat "$folder/seen"
    diff "$folder/seen" - <<'SEEN'
rollback() 0 after_rollback after_transaction_end
close() 0 after_transaction_end
reset() 0 after_transaction_end
commit() 1 after_commit after_transaction_end
savepoint after_commit after_transaction_end
SEEN
done
