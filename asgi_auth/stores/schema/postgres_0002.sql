-- Invitations and counters. Whoever is named in an invitation is no foreign key: it stays when they go.

CREATE TABLE asgi_auth_invitations (
    subject_name text NOT NULL,
    id uuid NOT NULL CHECK (id <> '00000000-0000-0000-0000-000000000000'),
    scope text,
    email text NOT NULL,
    email_key text NOT NULL,
    grant_data jsonb NOT NULL,
    strategies jsonb NOT NULL,
    inviter_id uuid CHECK (inviter_id <> '00000000-0000-0000-0000-000000000000'),
    status text NOT NULL CHECK (status IN ('pending', 'accepted', 'revoked', 'declined', 'expired')),
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    sent_count bigint NOT NULL,
    last_sent_at timestamptz NOT NULL,
    delivery text NOT NULL CHECK (delivery IN ('waiting', 'sent', 'failed')),
    accepted_by uuid CHECK (accepted_by <> '00000000-0000-0000-0000-000000000000'),
    accepted_via text,
    ended_at timestamptz,
    ended_by uuid CHECK (ended_by <> '00000000-0000-0000-0000-000000000000'),
    reason text,
    PRIMARY KEY (subject_name, id),
    CHECK ((status = 'pending') = (ended_at IS NULL))
);

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
    subject_name text NOT NULL,
    name text NOT NULL,
    key bytea NOT NULL,
    count bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (subject_name, name, key)
);

CREATE INDEX asgi_auth_counters_expires_at ON asgi_auth_counters (subject_name, expires_at);
