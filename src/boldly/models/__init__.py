"""Networks and objectives."""
