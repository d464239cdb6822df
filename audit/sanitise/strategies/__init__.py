"""The strategies, one file each; `audit.sanitise.registry` has their table."""
