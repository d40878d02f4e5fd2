-- Every table bears subject_name, and every key begins with it: two kinds of user never meet.
-- No id is the nil UUID: it stands for whatever was asked for and is no id.

CREATE TABLE asgi_auth_schema (
    version integer NOT NULL
);

CREATE TABLE asgi_auth_users (
    subject_name text NOT NULL,
    id uuid NOT NULL CHECK (id <> '00000000-0000-0000-0000-000000000000'),
    email text,
    email_key text,
    username text,
    username_key text,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (subject_name, id)
);

CREATE UNIQUE INDEX asgi_auth_users_email_key ON asgi_auth_users (subject_name, email_key);
CREATE UNIQUE INDEX asgi_auth_users_username_key ON asgi_auth_users (subject_name, username_key);

CREATE TABLE asgi_auth_accounts (
    subject_name text NOT NULL,
    user_id uuid NOT NULL,
    stamp bytea NOT NULL,
    password_hash text,
    -- The two digits after $2b$, wherever a marker of the scheme before it puts them; null for every other hash.
    bcrypt_cost smallint GENERATED ALWAYS AS (
        CAST(substring(password_hash from '\$2[abxy]\$([0-9][0-9])\$') AS smallint)
    ) STORED,
    confirmed_at timestamptz,
    disabled_at timestamptz,
    PRIMARY KEY (subject_name, user_id),
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_users (subject_name, id) ON DELETE CASCADE
);

CREATE INDEX asgi_auth_accounts_bcrypt_cost ON asgi_auth_accounts (subject_name, bcrypt_cost);

CREATE TABLE asgi_auth_sessions (
    subject_name text NOT NULL,
    secret_hash bytea NOT NULL,
    id uuid NOT NULL CHECK (id <> '00000000-0000-0000-0000-000000000000'),
    user_id uuid NOT NULL,
    stamp bytea NOT NULL,
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    label text NOT NULL,
    factors jsonb NOT NULL,
    remembered boolean NOT NULL,
    revoked_at timestamptz,
    -- For pruning alone: a session is live or not by the columns that this is made of.
    ended_at timestamptz GENERATED ALWAYS AS (
        least(idle_expires_at, expires_at, coalesce(revoked_at, expires_at))
    ) STORED,
    PRIMARY KEY (subject_name, secret_hash),
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_accounts (subject_name, user_id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX asgi_auth_sessions_id ON asgi_auth_sessions (subject_name, id);
CREATE INDEX asgi_auth_sessions_user_id ON asgi_auth_sessions (subject_name, user_id);
CREATE INDEX asgi_auth_sessions_ended_at ON asgi_auth_sessions (subject_name, ended_at);

CREATE TABLE asgi_auth_tokens (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject_name text NOT NULL,
    token_hash bytea NOT NULL,
    purpose text NOT NULL,
    user_id uuid,
    stamp bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    extra_data jsonb NOT NULL,
    FOREIGN KEY (subject_name, user_id) REFERENCES asgi_auth_accounts (subject_name, user_id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX asgi_auth_tokens_token_hash ON asgi_auth_tokens (subject_name, token_hash);
CREATE INDEX asgi_auth_tokens_user_id ON asgi_auth_tokens (subject_name, user_id, purpose);
CREATE INDEX asgi_auth_tokens_expires_at ON asgi_auth_tokens (subject_name, expires_at);
