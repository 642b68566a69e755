"""What operators type: one file a command, each no more than options, one call and its answer in words."""
