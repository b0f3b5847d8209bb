"""What a run starts from and what may change on the way: settings, their links, schedules of the learning rate."""
