"""Tables of control-oriented meta-learning."""
