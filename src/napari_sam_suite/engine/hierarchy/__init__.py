"""What lies in what: levels small, part and whole, and the tree that they make."""
