"""A request that cannot be answered, in a sentence for who asked."""


class BadRequest(ValueError):
    """status: of HTTP."""

    def __init__(self, sentence: str, status: int = 422) -> None:
        super().__init__(sentence)
        self.status = status
