"""Every statement of the SQL stores, by name."""

from asgi_auth.stores import sql_accounts, sql_counters, sql_invitations, sql_sessions, sql_tokens, sql_users

_MODULES = (sql_users, sql_accounts, sql_sessions, sql_tokens, sql_counters, sql_invitations)
_FIRST_WORDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")

STATEMENTS: dict[str, str] = {
    **{f"FIND_USER {field}": text for field, text in sql_users.FIND_USER.items()},
    **{f"LIST_INVITATIONS {number}": text for number, text in enumerate(sql_invitations.LIST_INVITATIONS.values())},
    **{
        name: text
        for module in _MODULES
        for name, text in vars(module).items()
        if name[0] != "_" and isinstance(text, str) and text.split()[0] in _FIRST_WORDS
    },
}
