"""Port drivers: how frames get from a port of this process to the far end of its link."""
