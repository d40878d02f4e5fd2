-- Instants are whole microseconds since the epoch; ids are text; what is a hash or a stamp is a blob.
-- Every table bears subject_name, and every key begins with it: two kinds of user never meet.

CREATE TABLE asgi_auth_schema (
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE asgi_auth_users (
    subject_name TEXT NOT NULL,
    id TEXT NOT NULL,
    email TEXT,
    email_key TEXT,
    username TEXT,
    username_key TEXT,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (subject_name, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX asgi_auth_users_email_key ON asgi_auth_users (subject_name, email_key);
CREATE UNIQUE INDEX asgi_auth_users_username_key ON asgi_auth_users (subject_name, username_key);

CREATE TABLE asgi_auth_accounts (
    subject_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    stamp BLOB NOT NULL,
    password_hash TEXT,
    -- The two digits after $2b$, wherever a marker of the scheme before it puts them; null for every other hash.
    bcrypt_cost INTEGER GENERATED ALWAYS AS (
        CASE WHEN password_hash GLOB '*$2[abxy]$[0-9][0-9]$*' THEN
            CAST(substr(password_hash, 4 + max(
                instr(password_hash, '$2a$'), instr(password_hash, '$2b$'),
                instr(password_hash, '$2x$'), instr(password_hash, '$2y$')
            ), 2) AS INTEGER)
        END
    ) VIRTUAL,
    confirmed_at INTEGER,
    disabled_at INTEGER,
    PRIMARY KEY (subject_name, user_id),
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_users (subject_name, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX asgi_auth_accounts_bcrypt_cost ON asgi_auth_accounts (subject_name, bcrypt_cost);

CREATE TABLE asgi_auth_sessions (
    subject_name TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    stamp BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    idle_expires_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    label TEXT NOT NULL,
    factors TEXT NOT NULL,
    remembered INTEGER NOT NULL,
    revoked_at INTEGER,
    -- For pruning alone: a session is live or not by the columns that this is made of.
    ended_at INTEGER GENERATED ALWAYS AS (
        min(idle_expires_at, expires_at, coalesce(revoked_at, expires_at))
    ) VIRTUAL,
    PRIMARY KEY (subject_name, secret_hash),
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_accounts (subject_name, user_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX asgi_auth_sessions_id ON asgi_auth_sessions (subject_name, id);
CREATE INDEX asgi_auth_sessions_user_id ON asgi_auth_sessions (subject_name, user_id);
CREATE INDEX asgi_auth_sessions_ended_at ON asgi_auth_sessions (subject_name, ended_at);

CREATE TABLE asgi_auth_tokens (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_name TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    purpose TEXT NOT NULL,
    user_id TEXT,
    stamp BLOB,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    extra_data TEXT NOT NULL,
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_accounts (subject_name, user_id) ON DELETE CASCADE
) STRICT;

CREATE UNIQUE INDEX asgi_auth_tokens_token_hash ON asgi_auth_tokens (subject_name, token_hash);
CREATE INDEX asgi_auth_tokens_user_id ON asgi_auth_tokens (subject_name, user_id, purpose);
CREATE INDEX asgi_auth_tokens_expires_at ON asgi_auth_tokens (subject_name, expires_at);
