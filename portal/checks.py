"""System checks of the installation (settings and database), and the guard that refuses an unsafe start."""
