"""The isolation of a statement outside a transaction: the database's default, which must be READ COMMITTED.

With a higher isolation, a statement that waits for another one fails with a serialization error. With READ COMMITTED it
sees the changes that the other one has committed. PostgreSQL, section 13.2.
"""

from asgi_auth.errors import ConfigurationError

DEFAULT_ISOLATION = "SELECT current_setting('default_transaction_isolation')"


def refuse_other_isolation(store: str, default: str) -> None:
    """Check the answer to ``DEFAULT_ISOLATION``.

    Raises:
        ConfigurationError: the default is not READ COMMITTED; the message names the remedy.
    """
    if default != "read committed":
        raise ConfigurationError(
            f"{store}: the connections have default_transaction_isolation '{default}', under which concurrent requests "
            "fail: run ALTER ROLE … SET default_transaction_isolation = 'read committed' and connect again"
        )
