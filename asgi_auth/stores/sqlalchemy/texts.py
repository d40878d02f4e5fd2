"""Messages for users about the rules of the application's model."""

from typing import Final

from asgi_auth.messages import ADDRESS_TAKEN, NAME_TAKEN, NOT_STORABLE, NOT_SUPPORTED, REQUIRED, TOO_LONG, Message

__all__ = ["NOT_STORABLE", "NOT_SUPPORTED", "REQUIRED", "TOO_LONG"]

TAKEN: Final = Message("model.taken", "This value is already in use.")
COMBINATION_TAKEN: Final = Message("model.combination_taken", "This combination is already in use.")
INVALID: Final = Message("model.invalid", "This value is invalid.")
NOT_A_CHOICE: Final = Message("model.not_a_choice", "Choose one of the supported values.")
NOT_A_NUMBER: Final = Message("model.not_a_number", "Enter a number.")
NOT_A_TEXT: Final = Message("model.not_a_text", "Enter a text.")
NOT_A_WHOLE_NUMBER: Final = Message("model.not_a_whole_number", "Enter a whole number.")
OUT_OF_RANGE: Final = Message("model.out_of_range", "This number is too large or too small.")
SOME_INVALID: Final = Message("model.some_invalid", "Some of the values are invalid.")
UNKNOWN: Final = Message("model.unknown", "This value does not exist.")

TAKEN_IDENTITIES: Final = {"email": ADDRESS_TAKEN, "username": NAME_TAKEN}
