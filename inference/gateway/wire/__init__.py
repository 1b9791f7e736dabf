"""The OpenAI-compatible wire: bytes in, typed values out, and back. No I/O."""
