#!/usr/bin/env bash
# SQLite 3.54.1 (by apsw 3.54.1.0): a write-ahead log beside a file that it does not belong to, and the files that
# remain after a database was read-only for a while.
#
# Expected: after a backup is moved to the path of a database, a connection reads the backup. A write to a read-only
# database fails at the begin of the transaction. A database that is made writable again can be written.
# Seen: the log of the earlier database stays beside the backup: its last connection does not remove it. The next
# connection reads the log as a part of the backup, without an error; `integrity_check` returns ok. BEGIN IMMEDIATE
# succeeds on a read-only database, and the first change fails. A reader of a read-only file creates a log with the mode
# of the file and does not remove it. After a chmod of the database alone, every write fails with "readonly".
# What it means: remove -wal and -shm before a backup is moved to the path; detect a replaced file by its inode; give
# the log the mode of the file.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "apsw==3.54.1.0"
"$folder/venv/bin/python" - "$folder" >"$folder/seen" <<'PYTHON'
import os
import sys

import apsw

print("SQLite", apsw.sqlite_lib_version())
directory = os.path.join(sys.argv[1], "data")
os.mkdir(directory)
if os.geteuid() == 0:  # file modes do not restrict root
    os.chown(directory, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.chdir(directory)


def made(name, text):
    connection = apsw.Connection(name)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("CREATE TABLE things (name)")
    connection.execute("INSERT INTO things VALUES (?)", (text,))
    return connection


def rows(connection, sql="SELECT name FROM things"):
    return [row[0] for row in connection.execute(sql)]


made("backup.db", "backup").close()
live = made("app.db", "live")
os.replace("backup.db", "app.db")
live.close()
print("left beside the backup:", *sorted(os.listdir()))
backup = apsw.Connection("app.db")
print("read from the backup:", rows(backup), rows(backup, "PRAGMA integrity_check"))
backup.close()

made("other.db", "a").close()
os.chmod("other.db", 0o400)
reader = apsw.Connection("other.db")
reader.execute("BEGIN IMMEDIATE")
try:
    reader.execute("INSERT INTO things VALUES ('b')")
except apsw.ReadOnlyError:
    print("read-only: BEGIN IMMEDIATE succeeds, INSERT fails")
reader.execute("ROLLBACK")
reader.close()
print("left beside it:", *(f"{name} {os.stat(name).st_mode & 0o777:o}" for name in ("other.db-shm", "other.db-wal")))
os.chmod("other.db", 0o600)
try:
    apsw.Connection("other.db").execute("INSERT INTO things VALUES ('b')")
except apsw.ReadOnlyError:
    print("writable again: INSERT fails")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
SQLite 3.54.1
left beside the backup: app.db app.db-shm app.db-wal
read from the backup: ['live'] ['ok']
read-only: BEGIN IMMEDIATE succeeds, INSERT fails
left beside it: other.db-shm 400 other.db-wal 400
writable again: INSERT fails
SEEN
