"""Every statement of the SQL stores, by name."""

from asgi_auth.stores import sql

STATEMENTS: dict[str, str] = {
    **{f"FIND_USER {field}": text for field, text in sql.FIND_USER.items()},
    **{
        name: text
        for name, text in vars(sql).items()
        if name[0] != "_" and isinstance(text, str) and text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
    },
}
