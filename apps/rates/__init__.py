"""Rate cards, prices and estimates."""
