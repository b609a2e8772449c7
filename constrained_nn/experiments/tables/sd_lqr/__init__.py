"""Tables of the state-dependent LQR."""
