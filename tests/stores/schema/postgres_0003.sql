-- The address that was proven last, where the one in force never was; null otherwise.

ALTER TABLE asgi_auth_accounts ADD COLUMN proven_email text;
