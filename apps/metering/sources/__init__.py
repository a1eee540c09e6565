"""Source adapters: turn answers of metrics servers, allocation APIs and imported files into readings."""
