"""A network on its way down, an update at a time, with every gauge; and the same from hooks on a loop of one's own."""
