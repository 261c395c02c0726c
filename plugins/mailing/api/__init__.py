"""The REST API below /mailing/api: one module per noun, each with its bodies, answers and paths.

Every path is a few lines: it opens a transaction, calls the domain, and says what to answer. `web` puts them together.
"""
