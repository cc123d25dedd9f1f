"""What acts while a network trains: gradual pruning, Less is More, rewinding, fresh weights."""
