"""``InvitationStore`` in the library's own table."""

from asgi_auth.stores.sql_invitations import Pending, SQLInvitations, pending_statements

# These tables have two unique indexes instead of one over an expression, because Alembic's migrations for SQLite omit
# indexes over expressions.
_IN_SCOPE = pending_statements(
    "scope = $2", "(subject_name, scope, email_key) WHERE status = 'pending' AND scope IS NOT NULL"
)
_WITHOUT_SCOPE = pending_statements(
    "scope IS NULL AND $2::text IS NULL", "(subject_name, email_key) WHERE status = 'pending' AND scope IS NULL"
)


class Invitations(SQLInvitations):
    """``InvitationStore``."""

    def _pending(self, scope: str | None) -> tuple[Pending, str | None]:
        return (_WITHOUT_SCOPE if scope is None else _IN_SCOPE), scope
