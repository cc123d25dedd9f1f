"""What keeps the accuracy when channels go: constants carried, layers refitted by least squares."""
