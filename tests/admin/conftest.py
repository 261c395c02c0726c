"""The fixtures of the web app."""

from tests.web import *  # noqa: F403
