"""The wire of OpenAI's and Anthropic's APIs: bytes in, typed values out, and back. No I/O."""
