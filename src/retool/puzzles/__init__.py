"""Generated problems in words, with the worked solutions of a person without a computer."""
