"""Tables of CoILS and of stable dynamics."""
