"""Boot image-based Linux in real virtual machines and judge it with acceptance suites."""
