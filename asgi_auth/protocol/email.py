"""Mail addresses and user names: one rule for what is the same (RFC 5321, 6531, 5890 to 5893; UTS 46; UAX 15).

The syntax is email-validator's, without DNS. What is added decides when two addresses are one account: wrongly keeping
two apart is harmless, wrongly merging them hands one person the other's account (AC-6).
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
    """Where mail is sent: the local part as it was entered, in NFC, and the domain in its one Unicode form."""
    key: str
    """What is compared and unique: the local part in lower case, the domain as A-labels. Never a mail target."""


def parse_email(text: str, *, special_use: bool = False) -> EmailAddress:
    """The one mailbox that *text* names (AC-6, AC-7).

    Case is folded by ``lower``, not ``casefold``, which would merge ``ß`` with ``ss``. A local part that NFKC would
    change (``ﬁ``, ``ª``) is refused, because some mail system will read it as the other one.

    >>> parse_email(" Alice@faß.de")
    EmailAddress(address='Alice@faß.de', key='alice@xn--fa-hia.de')

    Args:
        text: As entered; surrounding white space does not count.
        special_use: Also take names that no public mail server has, such as ``.test`` or ``localhost``.

    Raises:
        ValueError: It is no such address; the message is a sentence for the user and does not repeat the input.
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

    email-validator knows no switch for special-use names but the one for ``.test``, so they are looked at below it.
    """
    special = re.split(r"[.@]", address)[-1].lower() in SPECIAL_USE_DOMAIN_NAMES
    if special and not special_use:
        raise ValueError(_NO_MAIL)
    if len(unicodedata.normalize("NFKC", address.rpartition("@")[2])) > MAX_ADDRESS_CHARACTERS:
        raise ValueError(_NO_ADDRESS)  # some characters stand for 18 others, and IDNA looks at each
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
        )  # every option: their defaults are globals, which another part of the application may have changed
    except ValueError as exc:
        raise ValueError(_NO_ADDRESS) from exc
    return parsed.domain.removesuffix(suffix), parsed.ascii_domain.removesuffix(suffix).lower()


def _lower(local: str) -> str:
    """In lower case and NFC, which lower-casing may undo."""
    return unicodedata.normalize("NFC", local.lower())


def parse_username(text: str) -> tuple[str, str]:
    """The name as it is shown, and the key that is compared and unique.

    Here look-alikes are merged, by NFKC and case folding: nothing is sent to a name. Normalised first, then checked, so
    that nothing can appear after the check.

    >>> parse_username("Alice")
    ('Alice', 'alice')

    Args:
        text: As entered; surrounding white space does not count.

    Raises:
        ValueError: It is not 1 to 64 letters, digits, ``.``, ``_`` or ``-`` that start with a letter or digit; the
            message is a sentence for the user.
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
