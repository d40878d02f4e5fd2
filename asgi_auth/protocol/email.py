"""Mail addresses and user names, with one rule for equality (RFC 5321, 6531, 5890 to 5893; UTS 46; UAX 15).

email-validator checks the syntax, without DNS. This module decides when two addresses are equal. To separate equal ones
is harmless; to merge different ones would give one person the account of another (AC-6).
"""

import re
import unicodedata
from typing import NamedTuple

from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email

from asgi_auth.messages import Message

MAX_ADDRESS_CHARACTERS = 254
"""RFC 5321 section 4.5.3.1.3, erratum 1690 of RFC 3696; in octets, which email-validator counts after this."""

MAX_NAME_CHARACTERS = 64

_TEST = ".test"

_TOO_LONG = Message("address.too_long", "The address is too long.")
_AMBIGUOUS = Message(
    "address.ambiguous", "Mail systems do not agree on a character before the @ of this address. Use another address."
)
_NO_MAIL = Message("address.no_mail", "The domain of this address cannot receive mail.")
_NO_ADDRESS = Message("address.invalid", "This is not a mail address.")
_LENGTH = Message("name.length", "A name has 1 to {limit} characters.", limit=MAX_NAME_CHARACTERS)
_LETTERS = Message(
    "name.letters",
    "A name is made of letters, digits, dots, hyphens and underscores. It begins with a letter or a digit.",
)


class EmailAddress(NamedTuple):
    """A mailbox."""

    address: str
    """The address for mail: the local part as it was entered, in NFC, and the domain in its Unicode form."""
    key: str
    """The unique key for comparison: the local part in lower case, the domain as A-labels. Never send mail to it."""


def parse_email(text: str, *, special_use: bool = False) -> EmailAddress:
    """Parse *text* as one mailbox (AC-6, AC-7).

    ``lower`` folds the case; ``casefold`` would merge ``ß`` with ``ss``. A local part that NFKC would change (``ﬁ``,
    ``ª``) is rejected, because mail systems differ in how they read it.

    >>> parse_email(" Alice@faß.de")
    EmailAddress(address='Alice@faß.de', key='alice@xn--fa-hia.de')

    Args:
        text: The text as it was entered. Surrounding white space is ignored.
        special_use: True to accept names that no public mail server has, such as ``.test`` or ``localhost``.

    Raises:
        ValueError: It is not such an address. The message is for the user and does not repeat the input.
    """
    address = text.strip()
    if len(address) > MAX_ADDRESS_CHARACTERS:
        raise ValueError(_TOO_LONG)
    address = unicodedata.normalize("NFC", address)
    domain, ascii_domain = _domains(address, special_use)
    local = address.rpartition("@")[0]
    if unicodedata.normalize("NFKC", local) != local:
        raise ValueError(_AMBIGUOUS)
    return EmailAddress(f"{local}@{domain}", f"{_lower(local)}@{ascii_domain}")


def _domains(address: str, special_use: bool) -> tuple[str, str]:
    """The domain of a valid address in Unicode and as A-labels, both in lower case.

    email-validator can allow ``.test`` only. A special-use name is therefore checked as a name below ``.test``.
    """
    special = re.split(r"[.@]", address)[-1].lower() in SPECIAL_USE_DOMAIN_NAMES
    if special and not special_use:
        raise ValueError(_NO_MAIL)
    if len(unicodedata.normalize("NFKC", address.rpartition("@")[2])) > MAX_ADDRESS_CHARACTERS:
        raise ValueError(_NO_ADDRESS)  # some characters expand to 18 others, and IDNA reads each
    suffix = _TEST if special else ""
    try:
        parsed = validate_email(
            address + suffix,
            allow_smtputf8=True,
            allow_empty_local=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
            strict=False,
            check_deliverability=False,
            test_environment=special,
            globally_deliverable=True,
        )  # every option is set, as the application may have changed the global defaults
    except ValueError as exc:
        raise ValueError(_NO_ADDRESS) from exc
    return parsed.domain.removesuffix(suffix), parsed.ascii_domain.removesuffix(suffix).lower()


def _lower(local: str) -> str:
    """*local* in lower case, and again in NFC, as ``lower`` may undo that."""
    return unicodedata.normalize("NFC", local.lower())


def parse_username(text: str) -> tuple[str, str]:
    """The name for display, and the unique key for comparison.

    NFKC and case folding merge look-alike names, which is safe, as no mail goes to a name. The name is normalised first
    and then checked, so that no other character can appear after the check.

    >>> parse_username("Alice")
    ('Alice', 'alice')

    Args:
        text: The text as it was entered. Surrounding white space is ignored.

    Raises:
        ValueError: It is not 1 to 64 letters, digits, ``.``, ``_`` or ``-`` that start with a letter or digit. The
            message is for the user.
    """
    entered = text.strip()
    if len(entered) > MAX_NAME_CHARACTERS:
        raise ValueError(_LENGTH)
    name = unicodedata.normalize("NFKC", entered)
    key = unicodedata.normalize("NFKC", name.casefold())
    for form in (name, key):
        _check_name(form)
    return name, key


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(_LENGTH)
    if not name[0].isalnum() or not all(character.isalnum() or character in "._-" for character in name):
        raise ValueError(_LETTERS)
