"""What is done to a text before tokenization: one function, so that training and serving cannot differ."""


def normalize_text(text: str, *, lowercase: bool, strip_whitespace: bool) -> str:
    """Return the text as the tokenizer is to see it: white space collapsed first, then lowered."""
    if strip_whitespace:
        text = " ".join(text.split())
    return text.lower() if lowercase else text
