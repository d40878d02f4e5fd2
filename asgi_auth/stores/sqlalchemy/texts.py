"""What a person is told of a rule of the application's own model."""

from typing import Final

COMBINATION_TAKEN: Final = "This combination is already in use."
INVALID: Final = "This value is invalid."
NOT_A_CHOICE: Final = "Choose one of the supported values."
NOT_A_NUMBER: Final = "Enter a number."
NOT_A_TEXT: Final = "Enter a text."
NOT_A_WHOLE_NUMBER: Final = "Enter a whole number."
NOT_KEPT: Final = "This field is not supported."
NOT_STORABLE: Final = "This value cannot be stored."
OUT_OF_RANGE: Final = "This number is too large or too small."
REQUIRED: Final = "This field is required."
SOME_INVALID: Final = "Some of the values are invalid."
TOO_LONG: Final = "Enter a shorter text."
UNKNOWN: Final = "This value does not exist."

TAKEN_IDENTITIES: Final = {
    "email": "There is an account with this address already",
    "username": "This name is taken",
}


def taken(field: str) -> str:
    """For *field*, whose value another user has."""
    return f"This {field.replace('_', ' ')} is already in use."
