"""What training promises and the server relies on: the manifest, and how bytes become pixels."""
