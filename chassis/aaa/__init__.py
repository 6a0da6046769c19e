"""AAA: a RADIUS client and pools of addresses. Pure engines that the controller drives."""
