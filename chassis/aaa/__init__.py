"""AAA: a RADIUS client, a pure engine that the controller drives."""
