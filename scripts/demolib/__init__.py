"""The demo and benchmark behind scripts/demo: `rig` lays out the network and guards the children, `job` runs and
measures one kind of run, `report` judges and prints. Standard library only."""
