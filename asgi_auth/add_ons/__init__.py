"""What happens around accounts: one file an add-on."""

__all__: list[str] = []
