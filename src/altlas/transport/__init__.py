"""How jobs reach evaluators and results come back: the ports, a Redis adapter and an in-memory twin."""
