"""The web page: the whole workflow in a browser, by the project's own commands, without logic."""
