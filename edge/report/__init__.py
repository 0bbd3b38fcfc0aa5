"""What a run says to people: the page and the terminal's table, both from the manifest's data alone."""
