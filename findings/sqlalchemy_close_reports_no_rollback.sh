#!/usr/bin/env bash
# SQLAlchemy 2.1.9 (and 2.0.46): the events of a Session that report a rollback of its changes.
#
# Expected: close() and reset() roll an open transaction back and fire `after_rollback`, the documented event for work
# that depends on the transaction.
# Seen: the changes are rolled back, but close() and reset() fire only `after_transaction_end`; rollback() alone fires
# `after_rollback`. An `async with AsyncSession(…)` block ends with a close(). `after_commit` is also fired for each
# released savepoint, not only for the transaction.
# What it means: handle the rollback in `after_transaction_end`. At a commit, `after_commit` comes directly before it.
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
