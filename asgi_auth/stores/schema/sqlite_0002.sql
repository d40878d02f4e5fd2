-- Invitations and counters. Whoever is named in an invitation is no foreign key: it stays when they go.

CREATE TABLE asgi_auth_invitations (
    subject_name TEXT NOT NULL,
    id TEXT NOT NULL,
    scope TEXT,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL,
    grant_data TEXT NOT NULL,
    strategies TEXT NOT NULL,
    inviter_id TEXT,
    status TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'revoked', 'declined', 'expired')),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    sent_count INTEGER NOT NULL,
    last_sent_at INTEGER NOT NULL,
    delivery TEXT NOT NULL CHECK (delivery IN ('waiting', 'sent', 'failed')),
    accepted_by TEXT,
    accepted_via TEXT,
    ended_at INTEGER,
    ended_by TEXT,
    reason TEXT,
    PRIMARY KEY (subject_name, id),
    CHECK ((status = 'pending') = (ended_at IS NULL))
) STRICT;

-- One pending invitation for an address in a scope. Null is a scope like any other, and is not the empty one.
CREATE UNIQUE INDEX asgi_auth_invitations_pending
    ON asgi_auth_invitations (subject_name, coalesce('=' || scope, ''), email_key) WHERE status = 'pending';
CREATE INDEX asgi_auth_invitations_expires_at ON asgi_auth_invitations (subject_name, expires_at)
    WHERE status = 'pending';
CREATE INDEX asgi_auth_invitations_ended_at ON asgi_auth_invitations (subject_name, ended_at) WHERE email <> '';
CREATE INDEX asgi_auth_invitations_created_at ON asgi_auth_invitations (subject_name, created_at, id);
CREATE INDEX asgi_auth_invitations_inviter_id ON asgi_auth_invitations (subject_name, inviter_id, created_at, id);
CREATE INDEX asgi_auth_invitations_scope ON asgi_auth_invitations (subject_name, scope, created_at, id);
CREATE INDEX asgi_auth_invitations_status ON asgi_auth_invitations (subject_name, status, created_at, id);

CREATE TABLE asgi_auth_counters (
    subject_name TEXT NOT NULL,
    name TEXT NOT NULL,
    key BLOB NOT NULL,
    count INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (subject_name, name, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX asgi_auth_counters_expires_at ON asgi_auth_counters (subject_name, expires_at);
