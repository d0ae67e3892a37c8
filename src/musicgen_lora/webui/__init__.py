"""The page: the whole route in a browser, by the project's own commands. It holds no logic."""
