"""Version 2 (RFC 7296): sessions, their exchanges and their state machines."""
