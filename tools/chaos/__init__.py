"""Breaks links, processes and disks on purpose, by a seed, and checks that nothing is lost or counted twice."""
