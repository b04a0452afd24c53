"""What scripts/bench tunnel measures with: `site` lays out the network, `tunnels` and `peers` put beam and the others up in
it, `load` sends through them and meters the machine, `echo` is the small program at both ends of the latency probe,
`report` judges and prints. Builds on demolib. Standard library only."""
